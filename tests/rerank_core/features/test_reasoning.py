"""REASONING: two entities at least, and dense ones."""

from __future__ import annotations

import pytest

from rerank_core.features.reasoning import reasoning


@pytest.mark.parametrize(
    ("mentions", "words", "expected"),
    [(2, 10, True), (2, 11, False), (1, 1, False), (0, 0, False), (3, 15, True), (2, 0, True)],
)
def test_reasoning_needs_two_entities_and_the_density(mentions: int, words: int, expected: bool) -> None:
    assert reasoning(mentions, words, density=0.2) is expected
