"""What a person sees of `nightrank fuse`: each score alone, all of them together, and the weights."""

from __future__ import annotations

import math
from pathlib import Path

from rich import box
from rich.table import Table

from pipelines.report import out
from rerank_core.fusion import FEATURES, Fusion
from rerank_core.fusion_fit import FUSED, MAX_GAP, Fitted

SHOWN = ("nDCG@10", "MAP")


def weights(fusion: Fusion) -> dict[str, float]:
    """The weights that are not 0, by feature."""
    return {name: weight for name, weight in zip(FEATURES, fusion.weights, strict=True) if weight}


def print_fusion(found: Fitted, kept: Path | None) -> None:
    """The figures of each set, the weights, and where they lie."""
    scores = list(next(iter(found.figures.values())))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(" / ".join(SHOWN))
    for score in scores:
        table.add_column(score, justify="right", style="green" if score == FUSED else None)
    for name, rows in found.figures.items():
        cells = (" / ".join(f"{100 * rows[score][measure]:.1f}" for measure in SHOWN) for score in scores)
        table.add_row(name, *cells)
    out.print(table)
    if math.isinf(found.ridge):
        out.print(
            f"[yellow]no mixture beats {found.best_single} on questions that it was not fitted on: it stays alone[/]"
        )
    else:
        out.print("[bold]fused[/] is of questions that its weights were not fitted on")
    errors = ", ".join(f"{name} {100 * error:.1f}" for name, error in found.error.items())
    out.print(f"[bold]expected calibration error[/] of the fused score, %: {errors}", soft_wrap=True)
    told = ", ".join(f"{name} {weight:+.3g}" for name, weight in weights(found.fusion).items())
    out.print(
        f"[bold]weights[/] {told}, and {found.fusion.bias:+.3g}; fitted on {found.used:,} questions",
        soft_wrap=True,
    )
    if found.tag_share < 1 and not math.isinf(found.ridge):
        out.print(
            f"weights of tags are cut to {100 * found.tag_share:.0f} % of what was found, so that no set loses more "
            f"than {100 * MAX_GAP:.0f} point of MAP where tags are missing or shuffled",
            soft_wrap=True,
        )
    out.print(f"stored in {kept}" if kept else "stored nowhere (--dry-run)", soft_wrap=True)
