"""SQL views over published runs: `nightrank sql OUTPUT | duckdb`."""

from __future__ import annotations

import os
import re
from typing import Literal, get_args

import pyarrow.fs as fs

from nightrank.read.reader import open as open_reader
from schemas.layout import table_path
from schemas.tables import TABLES

Dialect = Literal["duckdb", "spark"]


def sql_views(
    output: str, *, run_id: str = "", dialect: Dialect = "duckdb", filesystem: fs.FileSystem | None = None
) -> str:
    """Statements that create a view for each table of a run, and one over the newest run of each date.

    The views of the run have the tables' names; those over all dates end with `_by_date`, and have the columns run_date
    and run_id as well.

    Args:
        output: as for `open`; the database must be able to read it under the same path.
        run_id: a published run; "": the one that `latest.json` names now.
        dialect: the database: duckdb, or spark (Spark SQL, whose views are temporary).

    Raises:
        As `open`; ValueError: another dialect.
    """
    if dialect not in get_args(Dialect):
        raise ValueError(f"unknown dialect {dialect!r:.80}; it is one of {', '.join(get_args(Dialect))}")
    with open_reader(output, run_id=run_id, filesystem=filesystem) as reader:
        run, tables = reader.run, [name for name in TABLES if name in reader.tables]
    base = (output if "://" in output else os.path.abspath(output)).rstrip("/")
    view = _duckdb if dialect == "duckdb" else _spark
    statements = [f"-- run {run.run_id} of {run.run_date}, and the newest run of each date"]
    for table in tables:
        statements.append(view(table, base, table_path(table, run.run_date, run.run_id), by_date=False))
        statements.append(view(f"{table}_by_date", base, table, by_date=True))
    return "\n".join(statements) + "\n"


def _duckdb(name: str, base: str, folder: str, *, by_date: bool) -> str:
    literal = re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", base)  # no pattern, whatever the folder's name
    pattern = "run_date=*/run_id=*/part-*.parquet" if by_date else "part-*.parquet"
    options = (
        "hive_partitioning = true, hive_types = {'run_date': DATE, 'run_id': VARCHAR}, union_by_name = true"
    )
    return (
        f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet({_quoted(f'{literal}/{folder}/{pattern}')}, "
        f"{options if by_date else 'hive_partitioning = false'});"
    )


def _spark(name: str, base: str, folder: str, *, by_date: bool) -> str:
    merge = ", mergeSchema 'true'" if by_date else ""
    path = re.sub(r"([*?\[\]{}\\])", r"\\\1", f"{base}/{folder}").replace("\\", "\\\\").replace("'", "\\'")
    return f"CREATE OR REPLACE TEMPORARY VIEW {name} USING parquet OPTIONS (path '{path}'{merge});"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
