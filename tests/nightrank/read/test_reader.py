"""Look-ups in published runs, by any thread, while runs come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nightrank import read
from schemas.manifest import Manifest
from tests.conftest import Night
from tests.support.published_run import publish_run, rewrite, score, text
from tests.support.tiny import rows

QUERIES = 60


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 queries. Read only."""
    folder = tmp_path_factory.mktemp("read")
    publish_run(folder, run_id="r1", queries=QUERIES)
    return folder


def test_every_row_of_a_night_is_found_by_its_query(night: Night) -> None:
    published = rows(night.output, night.manifest)
    with read.open(str(night.output)) as reader:
        found = {entry.query: reader.lookup(entry.query) for entry in reader.queries()}
        assert {row["query"] for row in published} == found.keys()
        for query, listed in found.items():
            expected = [row for row in published if row["query"] == query]
            assert [row["passage_id"] for row in expected] == [passage.passage_id for passage in listed]
            for row, passage in zip(expected, listed, strict=True):
                assert passage.tags is not None
                assert row == row | {
                    "rank": passage.rank,
                    "doc_id": passage.doc_id,
                    "title": passage.title,
                    "text": passage.text,
                    "score": passage.score,
                    "evidence": passage.evidence,
                    "entities": list(passage.tags.entities),
                    "hop_chain": list(passage.tags.hop_chain),
                    "role": passage.tags.role,
                }
            assert reader.table(query).to_pylist() == expected


def test_a_query_is_found_by_any_spelling(output: Path) -> None:
    with read.open(str(output)) as reader:
        found = reader.lookup("  What is\tQUERY number 4? ")
    assert (found.query, found.similarity, found.run_id) == (text(4), 1.0, "r1")
    assert [passage.rank for passage in found] == [1, 2, 3, 4]
    assert found[0].score == pytest.approx(score("r1", 4, 1))


def test_an_unknown_query_is_an_error_or_the_default(output: Path) -> None:
    with read.open(str(output)) as reader:
        with pytest.raises(read.QueryNotFound, match="run r1 has no query 'never asked'"):
            reader.lookup("never asked?")
        with pytest.raises(read.QueryNotFound, match="run r1 has no query"):
            reader.table("never asked?")
        assert reader.lookup("never asked", default=None) is None
        assert reader.lookup("never asked", default=[], nearest=True) == []


def test_async_look_ups_are_the_same(output: Path) -> None:
    async def ask(reader: read.Reader) -> list[object]:
        return await asyncio.gather(*(reader.alookup(text(number)) for number in range(QUERIES)))

    with read.open(str(output)) as reader:
        assert asyncio.run(ask(reader)) == [reader.lookup(text(number)) for number in range(QUERIES)]


def test_a_run_without_the_table_queries_is_read_as_well(tmp_path: Path) -> None:
    manifest = publish_run(tmp_path, run_id="r1", queries=9)
    with read.open(str(tmp_path)) as reader:
        expected = [reader.lookup(text(number)) for number in range(9)]
    _without_queries(tmp_path, manifest)
    with read.open(str(tmp_path)) as reader:
        assert [reader.lookup(text(number)) for number in range(9)] == expected
        assert sorted(entry.query for entry in reader.queries()) == [text(number) for number in range(9)]
        assert reader.lookup("what is the query number 8", nearest=True).query == text(8)
        assert reader.lookup("never asked", default=None) is None


def _without_queries(output: Path, manifest: Manifest) -> None:
    del manifest.tables["queries"]
    rewrite(output, manifest, "reranked", lambda table: table)  # also one row group a file, as then
