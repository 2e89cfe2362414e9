"""The best sequence of tags, against trying all of them."""

from __future__ import annotations

import numpy as np
import pytest

from rerank_core.features.recognisers.bio import TAGS, best_sequences


def _likeliest(answer: np.ndarray) -> float:
    """The score of the best well-formed sequence, by trying all of them."""
    tags = range(len(TAGS))
    follows = [[b == 0 or b % 2 == 1 or a in (b, b - 1) for b in tags] for a in tags]
    best = np.full(len(tags), -np.inf)
    best[0] = 0.0
    for row in answer:
        best = np.array([max(best[a] for a in tags if follows[a][b]) + row[b] for b in tags])
    return float(best.max())


def test_the_best_sequence_is_found_and_well_formed() -> None:
    rng = np.random.default_rng(7)
    answers = [rng.normal(0, 3, (n, len(TAGS))).astype(np.float32) for n in (0, 1, 7, 0, 40, 3, 0)]
    for answer in answers[1:]:
        answer[rng.random(len(answer)) < 0.3, 0] += 30  # certainly O
    for answer, tags in zip(answers, best_sequences(answers), strict=True):
        assert len(tags) == len(answer)
        for before, tag in zip([0, *tags], tags, strict=False):
            assert tag == 0 or tag % 2 == 1 or before in (tag, tag - 1)
        assert answer[np.arange(len(tags)), tags].sum() == pytest.approx(_likeliest(answer), abs=1e-3)


def test_no_texts_and_empty_texts_have_no_tags() -> None:
    assert best_sequences([]) == []
    assert [len(tags) for tags in best_sequences([np.zeros((0, 9), np.float32)] * 2)] == [0, 0]
