"""`nightrank report`: a run as one page for people, or a week of runs."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import AnyRunId, Output, not_empty
from rerank_core.errors import ConfigError


def report(
    output: Output,
    run_id: AnyRunId = None,
    week: Annotated[
        bool, typer.Option("--week", help="The seven days that end with the newest run, as trend lines.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="File to write; default: report.html beside the manifest, or week.html in OUTPUT.",
            callback=not_empty,
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write the report of a run, published or held: one HTML file that needs nothing else. Prints its path."""
    if week and run_id is not None:
        raise ConfigError("--week and --run-id exclude each other; leave one out")
    from pipelines.report.write import choose_run, report_html, report_path, save, write_week
    from pipelines.storage.filesystem import is_local

    if week:
        path = write_week(output, to or "")
    else:
        manifest, held = choose_run(output, run_id or "")
        page = to or report_path(output, manifest, held=held)
        path = save(page, report_html(output, manifest, held=held))
    typer.echo(path)
    if open_page:
        if not is_local(path):
            raise ConfigError(
                f"{path} is in an object store, which a browser does not open; give --to FILE too"
            )
        webbrowser.open(Path(path).resolve().as_uri())
