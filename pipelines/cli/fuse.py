"""`nightrank fuse`: fits the weights of the fused order."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.options import (
    Backend,
    DryRun,
    Json,
    MaxLength,
    MaxQueries,
    MinRelevance,
    Model,
    Own,
    Quiet,
    Sets,
    Split,
    TopK,
    Work,
    set_progress,
)
from pipelines.cli.options import min_relevance as grades

if TYPE_CHECKING:
    from pipelines.evaluate.fuse import Fused


def fuse(
    model: Model,
    sets: Sets,
    backend: Backend = "",
    bi_encoder: Annotated[
        str, typer.Option("--bi-encoder", help="A bi-encoder's folder, to use its cosine as a feature.")
    ] = "",
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Do not use features that read tags.")] = False,
    split: Split = "dev",
    top_k: TopK = 50,
    own: Own = False,
    min_relevance: MinRelevance = None,
    max_length: MaxLength = 256,
    max_queries: MaxQueries = 0,
    work: Work = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit how a model's logits, BM25, links, tags and a bi-encoder make one order, and store it beside the model."""
    from pipelines.evaluate import fuse as fitting

    with set_progress(show=not (quiet or as_json)) as (on_indexed, on_scored):
        fused = fitting.fuse(
            model,
            sets,
            backend=backend,
            bi_encoder=bi_encoder,
            no_tags=no_tags,
            split=split,
            top_k=top_k,
            own=own,
            min_relevance=grades(min_relevance or ()),
            max_length=max_length,
            max_queries=max_queries,
            work=work,
            dry_run=dry_run,
            on_indexed=on_indexed,
            on_scored=on_scored,
        )
    if as_json:
        typer.echo(json.dumps(fitting.as_json(fused)))
    elif not quiet:
        print_fusion(fused)


SHOWN = ("nDCG@10", "MAP")


def print_fusion(fused: Fused) -> None:
    """The figures of each set, the weights, and where they are stored."""
    from rerank_core.ranking.fusion_fit import FUSED, MAX_GAP

    fit = fused.fit
    scores = list(next(iter(fit.figures.values())))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(" / ".join(SHOWN))
    for score in scores:
        table.add_column(score, justify="right", style="green" if score == FUSED else None)
    for name, rows in fit.figures.items():
        cells = (" / ".join(f"{100 * rows[score][measure]:.1f}" for measure in SHOWN) for score in scores)
        table.add_row(name, *cells)
    console.out.print(table)
    if math.isinf(fit.ridge):
        console.out.print(
            f"[yellow]no mixture beats {fit.best_single} on held-out questions: it is stored alone[/]"
        )
    else:
        console.out.print("[bold]fused[/] is measured on held-out questions (cross-validation)")
    errors = ", ".join(f"{name} {100 * error:.1f}" for name, error in fit.error.items())
    console.out.print(f"[bold]expected calibration error[/] of the fused score, %: {errors}", soft_wrap=True)
    if fit.left_out:
        unseen = ", ".join(
            f"{name} {100 * means[SHOWN[1]]:.1f}, error {100 * means['ece']:.1f}"
            for name, means in fit.left_out.items()
        )
        console.out.print(f"[bold]fitted on the other sets[/] ({SHOWN[1]}): {unseen}", soft_wrap=True)
    weights = ", ".join(f"{name} {weight:+.3g}" for name, weight in fit.fusion.by_feature().items())
    console.out.print(
        f"[bold]weights[/] {weights}, {fit.fusion.top:+.3g} times the list's highest sum, and {fit.fusion.bias:+.3g}; "
        f"fitted on {fit.used:,} questions",
        soft_wrap=True,
    )
    if fit.tag_share < 1 and not math.isinf(fit.ridge):
        console.out.print(
            f"weights of tags are reduced to {100 * fit.tag_share:.0f} % of what was fitted, so that no set loses more "
            f"than {100 * MAX_GAP:.0f} point of MAP when tags are missing or shuffled",
            soft_wrap=True,
        )
    console.out.print(f"stored in {fused.path}" if fused.path else "not stored (--dry-run)", soft_wrap=True)
