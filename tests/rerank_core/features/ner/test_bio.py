"""The best sequence of tags, against trying all of them."""

from __future__ import annotations

import numpy as np
import pytest

from rerank_core.features.ner.bio import ALLOWED, TAGS, best_sequences


def _likeliest(answer: np.ndarray) -> float:
    """The score of the best sequence, a tag at a time over the whole text."""
    best = np.where(np.arange(len(TAGS)) == 0, 0.0, -np.inf)
    for row in answer:
        best = (best[:, None] + ALLOWED).max(axis=0) + row
    return float(best.max())


def test_the_best_sequence_is_found_and_well_formed() -> None:
    rng = np.random.default_rng(7)
    answers = [rng.normal(0, 3, (n, len(TAGS))).astype(np.float32) for n in (0, 1, 7, 0, 40, 3, 0)]
    for answer in answers[1:]:
        answer[rng.random(len(answer)) < 0.3, 0] += 60  # certainly O
    for answer, tags in zip(answers, best_sequences(answers), strict=True):
        assert len(tags) == len(answer)
        before = [0, *tags[:-1]] if len(tags) else []
        score = answer[np.arange(len(tags)), tags].sum() + ALLOWED[before, tags].sum()
        assert score == pytest.approx(_likeliest(answer), abs=1e-3)  # finite, so well formed


def test_no_texts_and_empty_texts_have_no_tags() -> None:
    assert best_sequences([]) == []
    assert [len(tags) for tags in best_sequences([np.zeros((0, 9), np.float32)] * 2)] == [0, 0]
