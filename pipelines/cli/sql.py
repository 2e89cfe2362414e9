"""`nightrank sql`: views over published runs, for a database that reads Parquet."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipelines.cli.options import RunId, chosen_run


def sql(
    output: Annotated[str, typer.Argument(help="Output folder of the nightly job: local, gs:// or s3://.")],
    run_id: RunId = None,
    dialect: Annotated[
        Literal["duckdb", "spark"], typer.Option("--dialect", help="The database that reads the views.")
    ] = "duckdb",
) -> None:
    """Print SQL views over a run's tables, and over the newest run of each date."""
    from nightrank.read.views import sql_views

    typer.echo(sql_views(output, run_id=chosen_run(run_id), dialect=dialect), nl=False)
