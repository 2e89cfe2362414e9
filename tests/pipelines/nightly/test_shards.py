"""Shards: which query goes where."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pipelines.nightly.shards import Shard, _assign, _make_shard, sample_shards, shard_count, shard_of
from rerank_core.ranking.cascade import in_sample
from rerank_core.text import query_id
from schemas.records import Query

TEXTS = st.lists(st.text("abcdefgh", min_size=1), unique_by=query_id, min_size=1, max_size=40)


def query(text: str) -> Query:
    return Query(query_id(text), text, 1, 1, ())


@given(queries=st.integers(0, 10**7), size=st.integers(1, 10**4))
def test_there_are_just_enough_shards(queries: int, size: int) -> None:
    total = shard_count(queries, size)
    assert total >= 1
    assert total * size >= queries
    assert total == 1 or (total - 1) * size < queries


@given(texts=TEXTS, size=st.integers(1, 10), seed=st.randoms(use_true_random=False))
def test_every_query_is_in_one_shard_whatever_the_order(
    texts: list[str], size: int, seed: random.Random
) -> None:
    def shards(ordered: list[str]) -> list[Shard]:
        grouped: dict[tuple[int, int], list[tuple[Query, bytes]]] = {}
        for text in ordered:
            blobs = [b"b" * 24, b"a" * 24]
            seed.shuffle(blobs)
            joined = (query_id(text), {"query": [query(text)], "previous": blobs})
            for key, value in _assign(joined, len(ordered), size, 0):
                grouped.setdefault(key, []).append(value)
        return sorted(map(_make_shard, grouped.items()))

    made = shards(texts)
    shuffled = list(texts)
    seed.shuffle(shuffled)
    assert shards(shuffled) == made
    asked = [group.query.text for shard in made for group in shard.groups]
    assert sorted(asked) == sorted(texts)
    for shard in made:
        assert shard.total == shard_count(len(texts), size)
        assert 0 <= shard.number < shard.total
        ids = [group.query.query_id for group in shard.groups]
        assert ids == sorted(ids)
        assert {shard_of(one, shard.total) for one in ids} == {shard.number}
        assert shard.previous == (b"a" * 24 + b"b" * 24,) * len(ids)


def test_a_query_that_is_not_asked_again_is_no_query_of_the_night() -> None:
    assert not list(_assign(("ff", {"query": [], "previous": [b"x" * 24]}), 3, 1, 0))
    ((_, value),) = _assign(("ff", {"query": [query("a")], "previous": []}), 3, 1, 0)
    assert value == (query("a"), b"")


@given(texts=TEXTS, size=st.integers(1, 10), sample=st.integers(1, 50))
def test_the_sample_has_the_first_shards_to_itself(texts: list[str], size: int, sample: int) -> None:
    first, total = sample_shards(sample, size), sample_shards(sample, size) + shard_count(len(texts), size)
    for text in texts:
        joined = (query_id(text), {"query": [query(text)], "previous": []})
        (((number, counted), _),) = _assign(joined, len(texts), size, sample)
        assert counted == total
        assert 0 <= number < total
        assert (number < first) == in_sample(query_id(text), share=sample / len(texts))
