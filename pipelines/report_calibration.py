"""What a person sees of `nightrank calibrate`: what the scores said, and what was so, before and after."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from pipelines.calibrate import Bins, Calibrated
from pipelines.report import out

SHOWN = 5


def print_calibration(found: Calibrated, kept: Path | None) -> None:
    """The error, a short table of reliability, and where the calibration lies."""
    told = ", ".join(f"{name} {count:,}" for name, count in found.pairs.items())
    out.print(f"{sum(found.pairs.values()):,} judged pairs: {told}")
    out.print(
        f"[bold]expected calibration error[/] {100 * found.before:.1f} % by the sigmoid, "
        f"[green]{100 * found.after:.1f} %[/] by {found.method}, on questions that the fit did not see"
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("score", "sigmoid: pairs", "relevant", f"{found.method}: pairs", "relevant"):
        table.add_column(name, justify="right")
    for n in range(SHOWN):
        low, high = n / SHOWN, (n + 1) / SHOWN
        cells = [cell for bins in (found.bins_before, found.bins_after) for cell in _within(bins, low, high)]
        table.add_row(f"{low:.1f} to {high:.1f}", *cells)
    out.print(table)
    out.print(f"stored in {kept}" if kept else "stored nowhere (--dry-run)", soft_wrap=True)


def _within(bins: Bins, low: float, high: float) -> tuple[str, str]:
    """(pairs, share of them that is relevant) of the scores in a range; a bin is where its mean score is."""
    own = [(so, count) for said, so, count in bins if low <= said < high or (high == 1 == said)]
    pairs = sum(count for _, count in own)
    return f"{pairs:,}", f"{sum(so * count for so, count in own) / pairs:.2f}" if pairs else "-"
