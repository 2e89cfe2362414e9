"""`nightrank calibrate` as a command; pipelines/cli.py adds it to the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines import report
from pipelines.cli_options import (
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
from rerank_core.calibration import Method


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
    from pipelines import calibrate as fitting
    from pipelines import report_calibration
    from pipelines.evaluation_files import check_targets
    from pipelines.judged_sets import Wanted, read_set
    from pipelines.systems import open_system, parse

    fitting.check(plot=plot is not None)
    check_targets(plot)
    check_names(sets)
    (system,) = parse([f"{backend}:{model}" if backend else model])
    # Fusion weights, where there are some, bring a calibration of their own.
    opened = open_system(system._replace(alone=True), tags=["auto"], max_length=max_length, work=work)
    wanted = Wanted(split, "document", own, top_k=top_k, max_queries=max_queries)
    shown = not (quiet or as_json)
    with index_folder(work) as folder, report.counter("Scoring", unit="pairs", show=shown) as count:
        judged = [read_set(path, wanted=wanted, work=folder) for path in sets]
        pairs = {one.name: fitting.judged_pairs(one, opened, on_scored=count) for one in judged}
    found = fitting.calibrate(pairs, method=method)
    if plot:
        fitting.plot(found, plot)
    kept = None if dry_run else fitting.keep(system.path, found)
    if as_json:
        typer.echo(json.dumps({**fitting.plain(found), "path": str(kept) if kept else None}))
    elif not quiet:
        report_calibration.print_calibration(found, kept)
