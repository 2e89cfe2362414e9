"""`nightrank release`: publishes a run that was held back."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli import console
from pipelines.cli.night_summary import manifest_json, pointer
from pipelines.cli.options import Json, Output, Quiet, SetLatest, not_empty

HeldRun = Annotated[
    str, typer.Argument(metavar="RUN_ID", help="A run that was held back.", callback=not_empty)
]


def release(
    output: Output,
    run_id: HeldRun,
    set_latest: SetLatest = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Publish a run that was held back, once somebody has looked at it."""
    from pipelines.storage.held import release as release_run

    manifest = release_run(output, run_id, set_latest=set_latest)
    if as_json:
        typer.echo(manifest_json(manifest))
    elif not quiet:
        console.out.print(
            f"[bold]Published[/] run {manifest.run_id} of {manifest.run_date}; {pointer(manifest, output)}",
            soft_wrap=True,
        )
