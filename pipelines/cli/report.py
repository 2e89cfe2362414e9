"""`nightrank report`: a run as one page for people, or a week of runs."""

from __future__ import annotations

import datetime
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import AnyRunId, Output, not_empty
from rerank_core.errors import ConfigError


def report(
    output: Output,
    run_id: AnyRunId = None,
    run_date: Annotated[
        datetime.datetime | None,
        typer.Option(
            "--run-date",
            formats=["%Y-%m-%d"],
            help="The night of this date: its newest run, or if it failed, why.",
            show_default=False,
        ),
    ] = None,
    week: Annotated[
        bool, typer.Option("--week", help="The seven days that end with the newest run, as trend lines.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="File to write; default: report.html beside the manifest, _plan/run_date=D.html of a failed night, "
            "or week.html in OUTPUT.",
            callback=not_empty,
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write the report of a night, published, held or failed: one HTML file that needs nothing else.

    Prints its path.
    """
    given = [name for name, on in (("--week", week), ("--run-id", run_id), ("--run-date", run_date)) if on]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]} exclude each other; leave one out")
    from pipelines.report.write import page_of_night, save, write_week
    from pipelines.storage.filesystem import is_local

    if week:
        path = write_week(output, to or "")
    else:
        date = run_date.date().isoformat() if run_date else ""
        place, page = page_of_night(output, run_id=run_id or "", run_date=date)
        path = save(to or place, page)
    typer.echo(path)
    if open_page:
        if not is_local(path):
            raise ConfigError(
                f"{path} is in an object store, which a browser does not open; give --to FILE too"
            )
        webbrowser.open(Path(path).resolve().as_uri())
