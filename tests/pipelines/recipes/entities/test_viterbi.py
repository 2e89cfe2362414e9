"""Sequences of tags."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.recipes.entities.viterbi import marginals, spans, transitions, well_formed
from rerank_core.features.ner.bio import TAGS


def test_an_inside_that_continues_nothing_begins() -> None:
    tags = well_formed(["I-PER", "I-PER", "O", "B-ORG", "I-LOC"])
    assert tags == ("B-PER", "I-PER", "O", "B-ORG", "B-LOC")
    assert spans(tags) == [(0, 2, "PER"), (3, 4, "ORG"), (4, 5, "LOC")]


def test_words_in_doubt_follow_their_neighbours() -> None:
    follows = transitions([("B-ORG", "I-ORG", "O", "O"), ("O", "B-LOC", "O")])
    p = np.zeros((3, len(TAGS)), np.float32)
    p[0, TAGS.index("B-ORG")], p[0, TAGS.index("B-LOC")] = 0.9, 0.1
    p[1, TAGS.index("I-ORG")], p[1, TAGS.index("I-LOC")] = 0.45, 0.55
    result = marginals(p, follows)  # the last word is unknown
    assert TAGS[result[1].argmax()] == "I-ORG"
    assert result[:2].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert result[2].sum() == 0
