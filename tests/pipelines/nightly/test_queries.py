"""The table `queries`: every published query once, sorted, with the place of its rows."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.nightly import queries, query_table
from pipelines.nightly.prepare import Run
from pipelines.nightly.sinks import file_name, write_lists
from rerank_core.text import query_id
from schemas.layout import file_of_id, first_id
from schemas.tables import QUERIES, RERANKED
from tests.support.published_run import RUN_DATE, blank_row

IDS = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")


@given(
    id_=IDS | st.sampled_from(["0" * 16, "f" * 16, "8" + "0" * 15, "7" + "f" * 15]),
    total=st.integers(1, 5000),
)
def test_an_id_is_in_the_file_whose_range_holds_it(id_: str, total: int) -> None:
    number = file_of_id(id_, total)
    assert 0 <= number < total
    assert first_id(number, total) <= id_ < first_id(number + 1, total)


@settings(max_examples=30, deadline=None)
@given(
    shards=st.lists(st.lists(st.integers(1, 9), max_size=9), min_size=1, max_size=6),
    per_file=st.integers(1, 12),
    per_group=st.integers(1, 5),
    rows_per_group=st.integers(1, 20),
)
def test_every_query_is_listed_once_with_the_place_of_its_rows(
    shards: list[list[int]], per_file: int, per_group: int, rows_per_group: int
) -> None:
    """Shards of queries with 1 to 9 rows each, with limits so small that each is met."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "QUERIES_PER_FILE", per_file)
        patch.setattr(queries, "QUERIES_PER_GROUP", per_group)
        patch.setattr(queries, "FILES_AT_ONCE", 2)
        patch.setattr(query_table, "ROWS_PER_GROUP", rows_per_group)
        run = Run("r", RUN_DATE, None, folder, None)
        counts = _write(run, shards)
        queries.merge_queries(run)
        files = sorted(Path(folder, "queries").glob("part-*.parquet"))
        assert len(files) == max(1, -(-len(counts) // per_file))
        listed = [
            row for number, path in enumerate(files) for row in _listed(path, number, len(files), per_group)
        ]
        assert [row["query_id"] for row in listed] == sorted(counts)
        for row in listed:
            assert row["count"] == counts[row["query_id"]]
            file = pq.ParquetFile(Path(folder, "reranked", row["part"]))
            found = file.read_row_group(row["row_group"]).slice(row["row"], row["rows"])
            assert found["query_id"].unique().to_pylist() == [row["query_id"]]
            assert found["rank"].to_pylist() == list(range(1, row["count"] + 1))
            assert found["stale_since"][0].as_py() == row["stale_since"]


def _write(run: Run, shards: list[list[int]]) -> dict[str, int]:
    """Write the shards; rows of each query by its id, which are its count too."""
    blank, stale = blank_row(), (None, "2026-03-01")
    names, counts = itertools.count(), dict[str, int]()
    for number, sizes in enumerate(shards):
        ours = {query_id(f"q{next(names)}"): size for size in sizes}
        rows = [
            blank | {"query_id": id_, "query": id_, "rank": rank, "stale_since": stale[size % 2]}
            for id_, size in sorted(ours.items())
            for rank in range(1, size + 1)
        ]
        write_lists(run, file_name(number, len(shards)), pa.Table.from_pylist(rows, schema=RERANKED), ours)
        counts |= ours
    return counts


def _listed(path: Path, number: int, total: int, per_group: int) -> list[dict[str, object]]:
    file = pq.ParquetFile(path)
    assert file.schema_arrow.equals(QUERIES)
    assert all(file.metadata.row_group(n).num_rows <= per_group for n in range(file.num_row_groups))
    rows: list[dict[str, object]] = file.read().to_pylist()
    assert all(file_of_id(str(row["query_id"]), total) == number for row in rows)
    return rows
