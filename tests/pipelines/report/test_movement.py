"""How far a list moved: between 0 and 1, the same in both directions, and what was found by a plain loop."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.movement import DEPTH, Highest, movement

LISTS = st.lists(st.integers(0, 20).map(str), unique=True, max_size=15)


def ranked(items: list[str]) -> dict[str, int]:
    return {item: rank for rank, item in enumerate(items, 1)}


@given(LISTS, LISTS)
def test_it_is_the_weight_of_places_that_changed_hands(before: list[str], after: list[str]) -> None:
    moved = movement(ranked(before), ranked(after))
    changed = whole = 0.0
    for item in {*before, *after}:
        weights = [
            1 / math.log2(2 + order.index(item)) if item in order[:DEPTH] else 0.0
            for order in (before, after)
        ]
        changed, whole = changed + abs(weights[0] - weights[1]), whole + sum(weights)
    assert moved == pytest.approx(changed / whole if whole else 0)
    assert 0 <= moved <= 1 + 1e-9
    assert moved == pytest.approx(movement(ranked(after), ranked(before)))
    assert (moved == 0) == (before[:DEPTH] == after[:DEPTH])


def test_documents_that_a_cut_list_lacks_count_as_gone() -> None:
    assert (
        movement({"a": 1, "c": 3}, {"a": 1, "c": 2})
        == movement({"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 2})
        > 0
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99)), unique_by=lambda one: one[1]))
def test_only_the_highest_are_kept(found: list[tuple[int, int]]) -> None:
    highest = Highest(3)
    for value, name in found:
        highest.add(value, f"{name:02}", "file")
    expected = sorted(((value, f"{name:02}") for value, name in found), reverse=True)[:3]
    assert [(one.value, one.query_id) for one in highest.best()] == expected
