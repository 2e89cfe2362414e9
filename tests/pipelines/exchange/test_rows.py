"""A run's rows, a query at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.exchange.rows import examples, lists
from pipelines.storage import runs
from schemas.errors import ManifestError
from tests.conftest import Night
from tests.support.published_run import publish_run, text


def test_a_query_comes_once_whatever_the_order_of_its_rows(tmp_path: Path) -> None:
    manifest = publish_run(tmp_path, run_id="20260308-0", queries=30, shards=4, results=3)
    found = list(lists(str(tmp_path), manifest))
    assert sorted(one.query for one in found) == sorted(map(text, range(30)))
    assert all(sorted(row["rank"] for row in one.rows) == [1, 2, 3] for one in found)


def test_every_hard_negative_is_in_one_example(night: Night) -> None:
    found = list(examples(str(night.output), night.manifest))
    assert sum(len(one.negatives) for one in found) == night.manifest.tables["hard_negatives"].rows > 0
    assert all(len(one.logits) == len(one.ids) == 1 + len(one.negatives) for one in found)
    assert len({(one.query_id, one.ids[0]) for one in found}) == len(found)


def test_a_run_without_the_table_is_named(night: Night) -> None:
    bare = {"reranked": night.manifest.tables["reranked"]}
    manifest = night.manifest.__class__(**{**night.manifest.__dict__, "tables": bare})
    with pytest.raises(
        ManifestError, match=r"has no table hard_negatives; turn mining\.enabled on for a night"
    ):
        list(examples(str(night.output), manifest))
    assert runs.open_run(str(night.output)).tables.keys() > bare.keys()
