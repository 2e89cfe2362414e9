"""`nightrank import`: training data of other tools as a run that `nightrank train` reads."""

from __future__ import annotations

import datetime
import json
from typing import Annotated, Literal

import typer

from pipelines.cli import console
from pipelines.cli.console import cut
from pipelines.cli.options import Json, Quiet, not_empty

Format = Literal["flagembedding", "st-triplet", "st-labeled-pair", "st-labeled-list"]


def import_(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="JSON lines (also gzipped) or .parquet.")
    ],
    format: Annotated[
        Format, typer.Option("--format", help="Of the files; st- are those of sentence-transformers.")
    ],
    to: Annotated[
        str,
        typer.Option("--to", help="Folder of imported runs, to name in a stage's runs.", callback=not_empty),
    ],
    run_date: Annotated[
        datetime.datetime | None,
        typer.Option(
            "--run-date", formats=["%Y-%m-%d"], help="Date of the imported run; default: today (UTC)."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make training data of another tool a run that `nightrank train` reads."""
    from pipelines.exchange.import_run import import_files

    now = datetime.datetime.now(datetime.UTC)
    done = import_files(files, format=format, to=to, run_date=(run_date or now).date(), now=now)
    if as_json:
        typer.echo(json.dumps(done._asdict(), ensure_ascii=False))
    elif not quiet:
        counts = ", ".join(f"{count:,} {what}" for what, count in done.counts.items())
        console.out.print(f"[bold]{cut(done.output, 200)}[/]  run {done.run_id}: {counts}")
        source = "hard_negatives" if "hard_negatives" in done.counts else "training_pairs"
        console.out.print(
            f'  name it in a stage: runs = [{cut(json.dumps(done.output), 200)}], source = "{source}"'
        )
