"""CAUSAL: markers of causes, not their look-alikes."""

from __future__ import annotations

import re

import pytest

from rerank_core.features.causal import MARKERS, Marker, causal

EXAMPLES = [(marker, text) for marker in MARKERS for text in marker.examples]
TRAPS = [text for marker in MARKERS for text in marker.traps]


@pytest.mark.parametrize(("marker", "text"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_each_marker_takes_its_examples(marker: Marker, text: str) -> None:
    match = re.search(marker.pattern, text, re.IGNORECASE)
    assert match
    assert any(word in match.group().lower() for word in marker.words.split("|"))
    assert causal(text)


@pytest.mark.parametrize("text", TRAPS)
def test_no_marker_takes_the_false_friends(text: str) -> None:
    assert not causal(text)


def test_every_marker_has_examples_and_false_friends() -> None:
    assert all(marker.examples and marker.traps for marker in MARKERS)


@pytest.mark.parametrize(
    "text", ["It fell, because.", "THANKS TO her it worked.", "It rained; THEREFORE it fell."]
)
def test_neither_case_nor_place_matters(text: str) -> None:
    assert causal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "So far it has held.",
        "A so-called expert came.",
        "She saved in order to buy it.",  # a purpose
        "To this end he trained.",
        "He was led by Moss.",
    ],
)
def test_what_is_no_cause(text: str) -> None:
    assert not causal(text)
