"""Shards: which query goes where."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from pathlib import Path

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.beam_options import beam_options
from pipelines.nightly.shards import (
    Earlier,
    MakeShards,
    Shard,
    Unreached,
    _assign,
    _make_shards,
    frequencies,
    sample_shards,
    shard_count,
)
from rerank_core.ranking.cascade import in_sample
from rerank_core.text import query_id
from schemas.records import Candidate, Query, QueryGroup, ScoredCandidate

TEXTS = st.lists(st.text("abcdefgh", min_size=1), unique_by=query_id, min_size=1, max_size=40)
COUNTS = st.lists(st.sampled_from([1, 1, 1, 2, 3, 50]), min_size=40, max_size=40)


def query(text: str, count: int = 1) -> Query:
    return Query(query_id(text), text, count, 1, ())


@given(queries=st.integers(0, 10**7), size=st.integers(1, 10**4))
def test_there_are_just_enough_shards(queries: int, size: int) -> None:
    total = shard_count(queries, size)
    assert total >= 1
    assert total * size >= queries
    assert total == 1 or (total - 1) * size < queries


def made_shards(queries: list[Query], size: int, sample: int = 0) -> list[Shard]:
    """The shards of some queries, in their order, each of which the previous run has in two pieces."""
    counted = frequencies(Counter(query.count for query in queries).items())
    grouped: dict[tuple[int, int], list[tuple[Query, Earlier]]] = {}
    for one in queries:
        earlier = [Earlier(b"b" * 24, 3), Earlier(b"a" * 24, 3)]
        joined = (one.query_id, {"query": [one], "previous": earlier[:: 1 if one.users else -1]})
        for key, value in _assign(joined, counted, size, sample):
            grouped.setdefault(key, []).append(value)
    return [shard for key in sorted(grouped) for shard in _make_shards((key, [None, *grouped[key], None]))]


@given(texts=TEXTS, counts=COUNTS, size=st.integers(1, 10), seed=st.randoms(use_true_random=False))
def test_every_query_is_in_one_shard_whatever_the_order(
    texts: list[str], counts: list[int], size: int, seed: random.Random
) -> None:
    queries = [query(text, count) for text, count in zip(texts, counts, strict=False)]
    made = made_shards(queries, size)
    shuffled = [one._replace(users=seed.randint(0, 1)) for one in seed.sample(queries, len(queries))]
    again = made_shards(shuffled, size)
    assert [[g.query.query_id for g in s.groups] for s in again] == [
        [g.query.query_id for g in s.groups] for s in made
    ]
    assert sorted(group.query for shard in made for group in shard.groups) == sorted(queries)
    for shard in made:
        assert shard.total == shard_count(len(queries), size)
        assert 0 <= shard.number < shard.total
        ids = [group.query.query_id for group in shard.groups]
        assert ids == sorted(ids)
        assert shard.previous == (Earlier(b"a" * 24 + b"b" * 24, 3),) * len(ids)


@given(texts=TEXTS, counts=COUNTS, size=st.integers(1, 10))
def test_frequent_queries_come_first(texts: list[str], counts: list[int], size: int) -> None:
    """Shards are bands of frequency: what is asked more often is never in a later one."""
    queries = [query(text, count) for text, count in zip(texts, counts, strict=False)]
    bands = [[group.query.count for group in shard.groups] for shard in made_shards(queries, size)]
    for earlier, later in itertools.pairwise(bands):
        assert min(earlier) >= max(later)


def test_shards_are_about_equally_large_whatever_the_frequencies() -> None:
    """A long tail of queries that are asked once, with and without a sample that has the lowest ids."""
    queries = [query(f"q{n}", max(1, 2000 // (n + 1))) for n in range(20_000)]
    for sample in (0, 5_000):
        shards = made_shards(queries, 200, sample)[sample_shards(sample, 200) :]
        sizes = [len(shard.groups) for shard in shards]
        assert len(sizes) == 100
        expected = (20_000 - sample) / 100
        assert max(sizes) < 1.5 * expected, sample
        assert min(sizes) > 0.5 * expected, sample


def test_a_query_that_is_not_asked_again_is_no_query_of_the_night() -> None:
    three = frequencies([(1, 3)])
    assert not list(_assign(("ff", {"query": [], "previous": [Earlier(b"x" * 24)]}), three, 1, 0))
    ((_, value),) = _assign(("ff", {"query": [query("a")], "previous": []}), three, 1, 0)
    assert value == (query("a"), Earlier())


def test_a_shard_without_queries_is_none() -> None:
    assert not list(_make_shards(((0, 2), [None, None])))


@given(texts=TEXTS, size=st.integers(1, 10), sample=st.integers(1, 50))
def test_the_sample_has_the_first_shards_to_itself(texts: list[str], size: int, sample: int) -> None:
    first, total = sample_shards(sample, size), sample_shards(sample, size) + shard_count(len(texts), size)
    for text in texts:
        joined = (query_id(text), {"query": [query(text)], "previous": []})
        (((number, counted), _),) = _assign(joined, frequencies([(1, len(texts))]), size, sample)
        assert counted == total
        assert 0 <= number < total
        assert (number < first) == in_sample(query_id(text), share=sample / len(texts))


@given(st.lists(st.sampled_from(["reached", "empty", "not reached"]), max_size=8))
def test_every_group_of_a_shard_is_kept_empty_or_not_reached(outcomes: list[str]) -> None:
    queries = [query(f"q{n}") for n in range(len(outcomes))]
    groups = tuple(QueryGroup(one, ()) for one in queries)
    earlier = tuple(Earlier(b"", n) for n in range(len(queries)))
    candidate = ScoredCandidate(Candidate("d", "d", "", "t", 1.0, 1), None, "", 1.0, False, 0)
    new = [
        {"reached": group._replace(candidates=(candidate,)), "empty": group, "not reached": None}[outcome]
        for group, outcome in zip(groups, outcomes, strict=True)
    ]
    before = Unreached(query("before"), 7)
    kept = Shard(0, 1, groups, earlier, unreached=(before,)).keep(new)
    assert [g.query for g in kept.groups] == [
        q for q, o in zip(queries, outcomes, strict=True) if o == "reached"
    ]
    assert [q.query_id for q in (g.query for g in kept.groups)] == [
        queries[e.file].query_id for e in kept.previous
    ]
    assert kept.unreached == (
        before,
        *(Unreached(queries[n], n) for n, outcome in enumerate(outcomes) if outcome == "not reached"),
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_the_local_runner_takes_shards_in_their_order(workers: int, tmp_path: Path) -> None:
    """Each worker, too: of three, every one takes its third of the shards from the most frequent queries on."""
    queries = [query(f"q{n}", 1000 - n) for n in range(240)]
    flags = [f"--direct_num_workers={workers}", "--direct_running_mode=multi_threading"]
    with beam.Pipeline(options=beam_options(flags)) as pipeline:
        made = (
            pipeline | "Queries" >> beam.Create(queries),
            pipeline | "Nothing" >> beam.Create([], reshuffle=False),
        ) | MakeShards(10)
        _ = made.rest | beam.Map(note, str(tmp_path))
    by_thread = [list(map(int, file.read_text().split())) for file in tmp_path.iterdir()]
    assert sorted(number for numbers in by_thread for number in numbers) == list(range(24))
    for numbers in by_thread:
        assert numbers == sorted(numbers)
        assert max(numbers) - min(numbers) > 24 // 2


def note(shard: Shard, folder: str) -> None:
    with Path(folder, str(threading.get_ident())).open("a") as file:
        file.write(f"{shard.number}\n")
