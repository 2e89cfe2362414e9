"""Ranking quality over fixed candidates."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.recipes.default_model.groups import SetPassage
from pipelines.recipes.default_model.measure import (
    EvaluationSet,
    Judged,
    cosine_scores,
    model_scores,
    ndcg_10,
)

PASSAGES = tuple(SetPassage(name, "", f"text {name}") for name in "abc")
JUDGED = EvaluationSet("s", (Judged("q", "who", PASSAGES, {"b": 1, "missed": 1}),))


def test_judged_documents_that_were_not_found_count() -> None:
    quality = ndcg_10(lambda query, passages: np.array([1.0, 2.0, 0.0]), JUDGED)
    assert quality == pytest.approx(1 / (1 + 1 / np.log2(3)), abs=1e-6)


def test_cosines_are_of_the_texts_unit_vectors() -> None:
    vectors = {"who": np.array([1.0, 0.0]), "text a": np.array([0.6, 0.8]), "text b": np.array([0.0, 1.0])}
    assert cosine_scores(vectors)("who", PASSAGES[:2]).tolist() == [0.6, 0.0]


def test_a_cross_encoder_sees_the_tags_of_its_mode() -> None:
    seen = []
    for mode in ("plain", "true"):
        model_scores(lambda pairs: seen.append(pairs[0].query) or np.zeros(len(pairs)), mode=mode)(
            "who", PASSAGES
        )
    assert seen[0] == "who"
    assert seen[1].startswith("[HOP:")
