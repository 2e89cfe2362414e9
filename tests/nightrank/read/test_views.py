"""The views that `nightrank sql` prints, in the databases themselves."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from benchmarks.readers import java, spark
from nightrank.read.views import sql_views
from pipelines.cli.app import app
from schemas.tables import TABLES
from tests.support.published_run import RUN_DATE, publish_run, score, text

NAMES = [
    "plain",
    "it's a folder",
    'with "double" quotes',
    "stars * and ? and [a-z]",
    "ünïcödé; DROP TABLE x --",
]


@pytest.mark.parametrize("name", NAMES)
def test_duckdb_reads_the_views_of_any_folder(tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    publish_run(output, run_id="r1", queries=3)
    publish_run(output, run_id="r2", queries=5)
    (tmp_path / "plain2").mkdir()
    with duckdb.connect() as connection:
        connection.execute(sql_views(str(output), run_id="r1"))
        lists = "SELECT q.count, r.score FROM queries q JOIN reranked r USING (query_id)"
        asked = f"{lists} WHERE q.query = ? ORDER BY rank"
        found = connection.execute(asked, [text(2)]).fetchall()
        assert found == [(3, pytest.approx(score("r1", 2, rank))) for rank in range(1, 5)]
        by_date = "SELECT DISTINCT run_date::VARCHAR, run_id, count(*) OVER () FROM queries_by_date"
        assert connection.execute(by_date).fetchall() == [(RUN_DATE, "r2", 5)]
        for table in TABLES:
            columns = connection.execute(f"DESCRIBE {table}").fetchall()
            assert [column[0] for column in columns] == TABLES[table].names
            connection.execute(f"SELECT count(*) FROM {table}_by_date")


def test_the_command_prints_them(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1", queries=3)
    done = CliRunner().invoke(app, ["sql", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (0, sql_views(str(tmp_path)))
    missing = CliRunner().invoke(app, ["sql", str(tmp_path / "missing")])
    assert missing.exit_code == 3
    assert "no published run in" in missing.stderr
    with pytest.raises(ValueError, match="unknown dialect 'oracle'; it is one of duckdb, spark"):
        sql_views(str(tmp_path), dialect="oracle")  # type: ignore[arg-type]


@pytest.mark.skipif(java() is None, reason="Spark 3.5 needs a Java from 8 to 21")
def test_spark_reads_them(tmp_path: Path) -> None:
    output = tmp_path / "it's a {folder}, [a-z]*"
    publish_run(output, run_id="r1", queries=3)
    for statement in sql_views(str(output), dialect="spark").splitlines()[1:]:
        spark().sql(statement.rstrip(";"))
    found = (
        spark()
        .sql("SELECT q.count FROM queries q JOIN reranked r USING (query_id) ORDER BY q.count")
        .collect()
    )
    assert [row[0] for row in found] == [1] * 4 + [2] * 4 + [3] * 4
    by_date = spark().sql("SELECT DISTINCT cast(run_date AS string), run_id FROM queries_by_date").collect()
    assert [tuple(row) for row in by_date] == [(RUN_DATE, "r1")]
