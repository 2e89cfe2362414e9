"""HOP: breadth-first distance over shared entities and the chain behind it, against a brute-force oracle."""

from __future__ import annotations

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.features.hop import FEWEST_UBIQUITOUS, chain, hops
from schemas.tags import HOP_UNREACHABLE


def of(*passages: str) -> list[frozenset[str]]:
    """Passages as strings of one-letter entities."""
    return [frozenset(entities) for entities in passages]


def distances(
    core: str, passages: list[frozenset[str]], *, max_hop: int = 3, min_idf: float = 0.0
) -> list[int]:
    return [one.hop for one in hops(frozenset(core), passages, max_hop=max_hop, min_idf=min_idf)]


def test_a_chain_is_counted_from_the_query() -> None:
    assert distances("a", of("ab", "bc", "cd", "x", "")) == [0, 1, 2, -1, -1]


def test_long_chains_are_reported_as_max_hop() -> None:
    assert distances("a", of("ab", "bc", "cd", "de"), max_hop=2) == [0, 1, 2, 2]


def test_the_shortest_chain_counts() -> None:
    assert distances("a", of("ab", "bc", "ac")) == [0, 1, 0]


def test_an_entity_that_most_passages_hold_joins_nothing_but_the_query() -> None:
    passages = of("au", "u", "u", "u", "u")

    assert distances("a", passages, min_idf=math.log(2)) == [0, -1, -1, -1, -1]
    assert distances("u", passages, min_idf=math.log(2)) == [0, 0, 0, 0, 0]


def test_in_a_small_group_three_holders_still_join() -> None:
    assert distances("a", of("ab", "b", "b"), min_idf=9.0) == [0, 1, 1]


def test_a_query_without_entities_reaches_nothing() -> None:
    assert distances("", of("ab", "bc")) == [HOP_UNREACHABLE] * 2
    assert distances("a", []) == []


def test_a_chain_names_every_step() -> None:
    found = hops(frozenset("a"), of("ab", "bc", "cd", "x"), max_hop=1, min_idf=0.0)
    names = ["one", "two", "three", "four"]

    assert [chain(found, index, names) for index in range(4)] == [
        ("a",),
        ("a", "one", "b"),
        ("a", "one", "b", "two", "c"),  # longer than max_hop, and given in full
        (),
    ]


def test_of_equal_chains_the_rarest_entity_is_shown() -> None:
    passages = of("abc", "bc", "b")  # "c" leads to the second too, and fewer hold it
    found = hops(frozenset("a"), passages, max_hop=3, min_idf=0.0, names=["x", "y", "z"])

    assert chain(found, 1, ["x", "y", "z"]) == ("a", "x", "c")


ENTITIES = st.frozensets(st.sampled_from("abcdefg"), max_size=3)
PASSAGES = st.lists(ENTITIES, max_size=10)


@given(ENTITIES, PASSAGES, st.integers(1, 4), st.sampled_from([0.0, 0.7, 1.6]))
@settings(deadline=None)
def test_against_the_oracle(
    core: frozenset[str], passages: list[frozenset[str]], max_hop: int, min_idf: float
) -> None:
    count = {e: sum(e in p for p in passages) for p in passages for e in p}
    bridges = {e for e, n in count.items() if n < FEWEST_UBIQUITOUS or math.log(len(passages) / n) >= min_idf}
    expected = [0 if p & core else HOP_UNREACHABLE for p in passages]
    for depth in range(1, len(passages) + 1):  # relax once for every possible length of a chain
        reached = [p for p, d in zip(passages, expected, strict=True) if d != HOP_UNREACHABLE]
        joined = {e for p in reached for e in p} & bridges
        expected = [
            depth if d == HOP_UNREACHABLE and p & joined else d
            for p, d in zip(passages, expected, strict=True)
        ]

    found = hops(core, passages, max_hop=max_hop, min_idf=min_idf)

    assert [one.hop for one in found] == [min(d, max_hop) for d in expected]


@given(ENTITIES, PASSAGES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_chains_hold_and_do_not_depend_on_the_order(
    core: frozenset[str], passages: list[frozenset[str]], rng: random.Random
) -> None:
    names = [f"p{n}" for n in range(len(passages))]
    order = list(range(len(passages)))
    rng.shuffle(order)
    found = hops(core, passages, max_hop=9, min_idf=0.0, names=names)
    shuffled_names = [names[n] for n in order]
    shuffled = hops(core, [passages[n] for n in order], max_hop=9, min_idf=0.0, names=shuffled_names)

    held = dict(zip(names, passages, strict=True))
    for place, index in enumerate(order):
        steps = chain(found, index, names)
        assert chain(shuffled, place, shuffled_names) == steps
        assert len(steps) == (0 if found[index].hop == HOP_UNREACHABLE else 2 * found[index].hop + 1)
        if steps:
            assert steps[0] in core
            for entity, passage in zip(steps[::2], [*steps[1::2], names[index]], strict=True):
                assert entity in held[passage]
            for passage, entity in zip(steps[1::2], steps[2::2], strict=True):
                assert entity in held[passage]
