"""HOP: breadth-first distance over shared entities, against a brute-force oracle."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.features.hop import core_entities, hops
from schemas.records import HOP_UNREACHABLE


def of(*passages: str) -> list[frozenset[str]]:
    """Passages as strings of one-letter entities."""
    return [frozenset(entities) for entities in passages]


def test_a_chain_is_counted_from_the_query() -> None:
    assert hops(frozenset("a"), of("ab", "bc", "cd", "x", ""), max_hop=3, max_entity_share=1.0) == [
        0,
        1,
        2,
        -1,
        -1,
    ]


def test_long_chains_are_reported_as_max_hop() -> None:
    assert hops(frozenset("a"), of("ab", "bc", "cd", "de"), max_hop=2, max_entity_share=1.0) == [0, 1, 2, 2]


def test_the_shortest_chain_counts() -> None:
    assert hops(frozenset("a"), of("ab", "bc", "ac"), max_hop=3, max_entity_share=1.0) == [0, 1, 0]


def test_an_entity_that_most_passages_hold_joins_nothing_but_the_query() -> None:
    passages = of("au", "u", "u", "u", "u")

    assert hops(frozenset("a"), passages, max_hop=3, max_entity_share=0.5) == [0, -1, -1, -1, -1]
    assert hops(frozenset("u"), passages, max_hop=3, max_entity_share=0.5) == [0, 0, 0, 0, 0]


def test_in_a_small_group_three_holders_still_join() -> None:
    assert hops(frozenset("a"), of("ab", "b", "b"), max_hop=3, max_entity_share=0.1) == [0, 1, 1]


def test_a_query_without_entities_reaches_nothing() -> None:
    assert hops(frozenset(), of("ab", "bc"), max_hop=3, max_entity_share=1.0) == [HOP_UNREACHABLE] * 2
    assert hops(frozenset("a"), [], max_hop=3, max_entity_share=1.0) == []


def test_core_entities_are_found_in_queries_without_capitals() -> None:
    known = frozenset({"new york", "york", "ann", "new yorker"})

    assert core_entities("hotels in new york", [], known) == {"new york", "york"}
    assert core_entities("annual report", ["rome"], known) == {"rome"}


ENTITIES = st.frozensets(st.sampled_from("abcdefg"), max_size=3)


@given(ENTITIES, st.lists(ENTITIES, max_size=10), st.integers(1, 4), st.sampled_from([0.2, 0.5, 1.0]))
@settings(deadline=None)
def test_against_the_oracle(
    core: frozenset[str], passages: list[frozenset[str]], max_hop: int, share: float
) -> None:
    count = {e: sum(e in p for p in passages) for p in passages for e in p}
    bridges = {e for e, n in count.items() if n <= max(3.0, share * len(passages))}
    expected = [0 if p & core else HOP_UNREACHABLE for p in passages]
    for depth in range(1, len(passages) + 1):  # relax once for every possible length of a chain
        reached = [p for p, d in zip(passages, expected, strict=True) if d != HOP_UNREACHABLE]
        joined = {e for p in reached for e in p} & bridges
        expected = [
            depth if d == HOP_UNREACHABLE and p & joined else d
            for p, d in zip(passages, expected, strict=True)
        ]

    found = hops(core, passages, max_hop=max_hop, max_entity_share=share)

    assert found == [min(d, max_hop) for d in expected]
