"""Shards are cut by pairs, and a night whose shards are cut publishes the same rows."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.nightly import balance
from pipelines.nightly.balance import cut
from pipelines.nightly.run import run
from pipelines.nightly.shards import Earlier, Shard, Unreached
from rerank_core.text import query_id
from schemas.records import Query, QueryGroup
from tests.support.fakes import fake, forbidden
from tests.support.tiny import DAY, Tiny, make_config, rows

SIZES = st.lists(st.integers(0, 12), max_size=30)


def shard_of(sizes: list[int]) -> tuple[Shard, dict[str, int]]:
    """A shard of as many queries, and the pairs of each."""
    queries = [Query(query_id(str(n)), str(n), 1, 1, ()) for n in range(len(sizes))]
    groups = tuple(QueryGroup(query, ()) for query in queries)
    earlier = tuple(Earlier(b"", n) for n in range(len(sizes)))
    unreached = (Unreached(Query(query_id("no"), "no", 1, 1, ()), -1),)
    shard = Shard(3, 7, groups, earlier, unreached=unreached)
    return shard, {query.query_id: size for query, size in zip(queries, sizes, strict=True)}


@given(sizes=SIZES, most=st.integers(1, 20))
def test_parts_are_the_shard_in_order_and_bounded(sizes: list[int], most: int) -> None:
    shard, pairs = shard_of(sizes)
    parts = list(cut(shard, lambda group: pairs[group.query.query_id], most=most))
    assert [g for part in parts for g in part.groups] == list(shard.groups)
    assert [e for part in parts for e in part.previous] == list(shard.previous)
    assert [u for part in parts for u in part.unreached] == list(shard.unreached)
    held = [[pairs[group.query.query_id] for group in part.groups] for part in parts]
    assert all(sum(some) <= most or sum(size > 0 for size in some) == 1 for some in held)
    assert all(sum(one) + sum(other) > most for one, other in itertools.pairwise(held))
    assert len({part.part for part in parts}) == len(parts)
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    assert {(part.number, part.total) for part in parts} == {(3, 7)}
    if sum(sizes) <= most:
        assert parts == [shard]


def test_a_night_of_cut_shards_publishes_the_same_rows(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With sentences as units, so that there are more than documents; the second night finds every score."""
    found, files = [], []
    for most in (50_000, 3):
        monkeypatch.setattr(balance, "PAIRS_PER_PART", most)
        config = make_config(
            tiny,
            tmp_path / str(most),
            source={"log": str(tiny.log)},
            output={"max_rejected_share": 0.5, "queries_per_shard": 50},
            candidates={"unit": "sentence"},
        )
        manifest = run(config, run_date=DAY, load=fake())
        tables = ("reranked", "hard_negatives", "training_pairs", "passage_tags", "dead_letters")
        every = {name: Counter(map(repr, rows(tmp_path / str(most), manifest, name))) for name in tables}
        found.append((every, manifest.balance))
        files.append(len(manifest.tables["reranked"].files))
    assert found[0] == found[1]
    assert files[0] == 1 < files[1]
    again = run(config, run_date=DAY, load=forbidden())
    assert again.balance.pairs["reused"] == manifest.balance.pairs["published"]
