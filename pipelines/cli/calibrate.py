"""`nightrank calibrate`: fits the calibration of a model's scores."""

from __future__ import annotations

import json
from pathlib import Path
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
    Model,
    Own,
    Quiet,
    Sets,
    Split,
    TopK,
    Work,
    set_progress,
)
from rerank_core.ranking.calibration import Method

if TYPE_CHECKING:
    from pipelines.evaluate.calibrate import Bins, Calibrated


def calibrate(
    model: Model,
    sets: Sets,
    method: Annotated[Method, typer.Option("--method", help="Form of the calibration.")] = "platt",
    backend: Backend = "",
    split: Split = "dev",
    top_k: TopK = 50,
    own: Own = False,
    max_length: MaxLength = 256,
    max_queries: MaxQueries = 0,
    work: Work = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="File for a reliability diagram, before and after.")
    ] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit a calibration of a model's scores on judged sets, and store it beside the model."""
    from pipelines.evaluate import calibrate as fitting

    if plot:
        fitting.check_plot(plot)
    with set_progress(show=not (quiet or as_json)) as (on_indexed, on_scored):
        calibrated = fitting.calibrate(
            model,
            sets,
            method=method,
            backend=backend,
            split=split,
            top_k=top_k,
            own=own,
            max_length=max_length,
            max_queries=max_queries,
            work=work,
            dry_run=dry_run,
            on_indexed=on_indexed,
            on_scored=on_scored,
        )
    if plot:
        fitting.plot(calibrated, plot)
    if as_json:
        typer.echo(json.dumps(fitting.as_json(calibrated)))
    elif not quiet:
        print_calibration(calibrated)


SHOWN = 5  # bins of the table


def print_calibration(calibrated: Calibrated) -> None:
    """The error, a short reliability table, and where the calibration is stored."""
    by_set = ", ".join(f"{name} {count:,}" for name, count in calibrated.pairs.items())
    console.out.print(f"{sum(calibrated.pairs.values()):,} judged pairs: {by_set}")
    console.out.print(
        f"[bold]expected calibration error[/] {100 * calibrated.before:.1f} % with the sigmoid, "
        f"[green]{100 * calibrated.after:.1f} %[/] with {calibrated.method}, on held-out questions"
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("score", "sigmoid: pairs", "relevant", f"{calibrated.method}: pairs", "relevant"):
        table.add_column(name, justify="right")
    for n in range(SHOWN):
        low, high = n / SHOWN, (n + 1) / SHOWN
        cells = [
            cell
            for bins in (calibrated.bins_before, calibrated.bins_after)
            for cell in _within(bins, low, high)
        ]
        table.add_row(f"{low:.1f} to {high:.1f}", *cells)
    console.out.print(table)
    stored = f"stored in {calibrated.path}" if calibrated.path else "not stored (--dry-run)"
    console.out.print(stored, soft_wrap=True)


def _within(bins: Bins, low: float, high: float) -> tuple[str, str]:
    """(pairs, share of them that is relevant) of the bins whose mean score is in a range."""
    inside = [(share, count) for mean, share, count in bins if low <= mean < high or (high == 1 == mean)]
    pairs = sum(count for _, count in inside)
    return f"{pairs:,}", f"{sum(share * count for share, count in inside) / pairs:.2f}" if pairs else "-"
