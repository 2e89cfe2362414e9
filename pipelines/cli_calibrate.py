"""`nightrank calibrate` as a command; pipelines/cli.py adds it to the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines import report
from pipelines.cli_evaluate import index_folder
from rerank_core.calibration import Method


def calibrate(
    model: Annotated[str, typer.Argument(help="A cross-encoder's folder, or default: the one that ships.")],
    sets: Annotated[list[Path], typer.Argument(metavar="SET...", help="Folders in BEIR's layout.")],
    method: Annotated[Method, typer.Option("--method", help="How logits become probabilities.")] = "platt",
    backend: Annotated[str, typer.Option("--backend", help="onnx, openvino, torch or causal_lm.")] = "",
    split: Annotated[str, typer.Option("--split", help="Which queries and judgements.")] = "dev",
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Candidates: BM25's best so many.")] = 50,
    own: Annotated[
        bool, typer.Option("--own", help="Candidates: a question's own list, where it has one.")
    ] = False,
    max_length: Annotated[int, typer.Option("--max-length", min=8, help="Tokens that a model reads.")] = 256,
    max_queries: Annotated[int, typer.Option("--max-queries", min=0, help="Queries of a set; 0: all.")] = 0,
    work: Annotated[Path | None, typer.Option("--work", help="Folder that keeps indices and scores.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the reliability here, before and after.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Store nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else.")
    ] = False,
) -> None:
    """Fit what a model's scores mean on judged sets, and store it beside the model."""
    from pipelines import calibrate as fitting
    from pipelines import report_calibration
    from pipelines.evaluation_files import check_targets
    from pipelines.judged_sets import Wanted, read_set
    from pipelines.systems import open_system, parse

    fitting.check(plot=plot is not None)
    check_targets(plot)
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
