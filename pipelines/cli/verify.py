"""`nightrank verify`: whether published runs are what their manifests say."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipelines.cli import console
from pipelines.cli.console import printable
from pipelines.cli.options import AnyRunId, Json, Output, Quiet
from rerank_core.errors import ConfigError
from schemas.errors import ManifestError


def verify(
    output: Output,
    run_id: AnyRunId = None,
    every: Annotated[bool, typer.Option("--all", help="Verify every run, published or held.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check a run's files against its manifest (checksums, schemas, counts, balance), and the folders of the tables."""
    from pipelines.nightly.published import check_folder

    if every and run_id is not None:
        raise ConfigError("--all and --run-id exclude each other")
    chosen = _chosen(output, run_id or "", every=every)
    runs = [_verified(output, *run) for run in chosen]
    dates = [""] if every else [run_date for run_date, _, held in chosen if not held]
    folder = [line for date in dates for line in check_folder(output, date)]
    lines = [f"{run['run_id']}: {line}" for run in runs for line in run["findings"]] + folder
    if as_json:
        typer.echo(json.dumps({"runs": runs, "folder": folder}, ensure_ascii=False))
    elif not quiet:
        for line in lines:
            console.out.print(printable(line), soft_wrap=True)
        if not lines:
            what = "1 run" if len(runs) == 1 else f"{len(runs):,} runs"
            console.out.print(f"[bold green]OK[/]: {what} verified, no findings")
    if lines:
        count = "1 finding" if len(lines) == 1 else f"{len(lines):,} findings"
        raise ManifestError(f"{count} in {output}: {'; '.join(lines[:3])}")


def _chosen(output: str, run_id: str, *, every: bool) -> list[tuple[str, str, bool]]:
    """(date, id, held) of the runs to verify."""
    from pipelines.storage.runs import HELD, check_output, latest, run_ids

    check_output(output)
    known = [(*run, False) for run in run_ids(output)] + [(*run, True) for run in run_ids(output, top=HELD)]
    if every:
        chosen = known
    elif run_id:
        chosen = [run for run in known if run[1] == run_id]
    else:
        newest = latest(output)
        chosen = [(newest.run_date, newest.run_id, False)] if newest else []
    if not chosen:
        which = repr(run_id) if run_id else "was published"
        raise ManifestError(
            f"no run {which} in {output}; `nightrank runs {output}` lists those that are there"
        )
    return chosen


def _verified(output: str, run_date: str, run_id: str, held: bool) -> dict[str, Any]:
    from pipelines.nightly.published import check_files
    from pipelines.storage.runs import read_manifest

    try:
        findings = check_files(output, read_manifest(output, run_date, run_id, held=held))
    except ManifestError as error:
        findings = [str(error)]
    return {"run_id": run_id, "run_date": run_date, "held": held, "findings": findings}
