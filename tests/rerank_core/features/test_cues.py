"""CAUSAL and REASONING: markers of causes, not their look-alikes."""

from __future__ import annotations

import pytest

from rerank_core.features.cues import causal, reasoning


@pytest.mark.parametrize(
    "text",
    [
        "It fell because it rained.",
        "It rained; therefore it fell.",
        "Delays due to snow.",
        "The reform led to unrest.",
        "This resulted in a strike.",
        "Smoking causes cancer.",
        "Since he was ill, she drove.",
        "It was cancelled on account of rain.",
        "It fell, because.",
        "THANKS TO her it worked.",
    ],
)
def test_causes(text: str) -> None:
    assert causal(text)


@pytest.mark.parametrize(
    "text",
    [
        "It has stood since 1990.",
        "It has stood since May 1990.",
        "Closed since then.",
        "Since the war it is closed.",
        "A cause of action was stated.",
        "The essay is due tomorrow.",
        "He led today's tour.",
        "Henceforth it is closed.",
        "A triggerfish swam by.",
        "Ever since, it is closed.",
        "",
    ],
)
def test_look_alikes(text: str) -> None:
    assert not causal(text)


@pytest.mark.parametrize(
    ("mentions", "words", "expected"),
    [(2, 10, True), (2, 11, False), (1, 1, False), (0, 0, False), (3, 15, True), (2, 0, True)],
)
def test_reasoning_needs_two_entities_and_the_density(mentions: int, words: int, expected: bool) -> None:
    assert reasoning(mentions, words, density=0.2) is expected
