"""One query's list of a published run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.storage.lookup import read_query
from rerank_core.errors import QueryNotFound
from tests.support.published_run import publish_run


def test_a_query_is_found_by_any_spelling_and_its_list_is_best_first(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1", queries=7, shards=2, results=3)
    result = read_query(str(tmp_path), "  What is QUERY number 4? ")
    assert (result.query, result.run_id) == ("what is query number 4", "r1")
    assert [row["rank"] for row in result.rows] == [1, 2, 3]


def test_an_unknown_query_names_the_nearest(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1", queries=3)
    publish_run(tmp_path, run_id="r2", queries=2)
    with pytest.raises(
        QueryNotFound, match="run r1 has no query 'what is query number 9'; the nearest are 'what is"
    ):
        read_query(str(tmp_path), "what is query number 9", run_id="r1")
