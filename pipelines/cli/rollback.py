"""`nightrank rollback`: serves an older run again."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli import console
from pipelines.cli.night_summary import manifest_json
from pipelines.cli.options import Json, Output, Quiet, not_empty

Target = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        help="The run to serve; default: the one before the current one.",
        show_default=False,
        callback=not_empty,
    ),
]


def rollback(output: Output, run_id: Target = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Serve an older run again: check its files, then point latest.json at it."""
    from pipelines.storage.rollback import rollback as roll_back

    manifest = roll_back(output, run_id or "")
    if as_json:
        typer.echo(manifest_json(manifest))
    elif not quiet:
        console.out.print(
            f"latest.json names run {manifest.run_id} of {manifest.run_date}; the next night of that date or a later "
            "one moves it on",
            soft_wrap=True,
        )
