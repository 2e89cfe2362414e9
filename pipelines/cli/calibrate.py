"""`nightrank calibrate`: fits what a model's scores mean."""

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
    check_names,
    index_folder,
)
from rerank_core.ranking.calibration import Method

if TYPE_CHECKING:
    from pipelines.evaluate.calibrate import Bins, Calibrated


def calibrate(
    model: Model,
    sets: Sets,
    method: Annotated[Method, typer.Option("--method", help="How logits become probabilities.")] = "platt",
    backend: Backend = "",
    split: Split = "dev",
    top_k: TopK = 50,
    own: Own = False,
    max_length: MaxLength = 256,
    max_queries: MaxQueries = 0,
    work: Work = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the reliability here, before and after.")
    ] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit what a model's scores mean on judged sets, and store it beside the model."""
    from pipelines.evaluate import calibrate as fitting
    from pipelines.evaluate.files import check_targets
    from pipelines.evaluate.judged_sets import Wanted, read_set
    from pipelines.evaluate.systems import open_system, parse

    fitting.check(plot=plot is not None)
    check_targets(plot)
    check_names(sets)
    (system,) = parse([f"{backend}:{model}" if backend else model])
    # Fusion weights, where there are some, bring a calibration of their own.
    opened = open_system(system._replace(alone=True), tags=["auto"], max_length=max_length, work=work)
    wanted = Wanted(split, "document", own, top_k=top_k, max_queries=max_queries)
    shown = not (quiet or as_json)
    with index_folder(work) as folder, console.counter("Scoring", unit="pairs", show=shown) as count:
        judged = [read_set(path, wanted=wanted, work=folder) for path in sets]
        pairs = {one.name: fitting.judged_pairs(one, opened, on_scored=count) for one in judged}
    found = fitting.calibrate(pairs, method=method)
    if plot:
        fitting.plot(found, plot)
    kept = None if dry_run else fitting.keep(system.path, found)
    if as_json:
        typer.echo(json.dumps({**fitting.plain(found), "path": str(kept) if kept else None}))
    elif not quiet:
        print_calibration(found, kept)


SHOWN = 5


def print_calibration(found: Calibrated, kept: Path | None) -> None:
    """The error, a short table of reliability, and where the calibration lies."""
    told = ", ".join(f"{name} {count:,}" for name, count in found.pairs.items())
    console.out.print(f"{sum(found.pairs.values()):,} judged pairs: {told}")
    console.out.print(
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
    console.out.print(table)
    console.out.print(f"stored in {kept}" if kept else "stored nowhere (--dry-run)", soft_wrap=True)


def _within(bins: Bins, low: float, high: float) -> tuple[str, str]:
    """(pairs, share of them that is relevant) of the scores in a range; a bin is where its mean score is."""
    own = [(so, count) for said, so, count in bins if low <= said < high or (high == 1 == said)]
    pairs = sum(count for _, count in own)
    return f"{pairs:,}", f"{sum(so * count for so, count in own) / pairs:.2f}" if pairs else "-"
