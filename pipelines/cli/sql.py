"""`nightrank sql`: views over published runs, for a database that reads Parquet."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipelines.cli.options import Output, RunId


def sql(
    output: Output,
    run_id: RunId = None,
    dialect: Annotated[
        Literal["duckdb", "spark"], typer.Option("--dialect", help="The database that reads the views.")
    ] = "duckdb",
) -> None:
    """Print SQL views over a run's tables, and over the newest run of each date."""
    from nightrank.read.views import sql_views

    typer.echo(sql_views(output, run_id=run_id or "", dialect=dialect), nl=False)
