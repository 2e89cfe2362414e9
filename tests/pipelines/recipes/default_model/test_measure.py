"""Ranking quality over fixed candidates, and what logit a score is."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.recipes.default_model.measure import (
    EvaluationSet,
    Judged,
    fit_logit,
    ndcg_10,
)
from pipelines.recipes.default_model.questions import SetPassage

PASSAGES = tuple(SetPassage(name, "", f"text {name}") for name in "abc")
JUDGED = EvaluationSet("s", (Judged("q", "who", PASSAGES, {"b": 1, "missed": 1}),))


def test_judged_documents_that_were_not_found_count() -> None:
    quality = ndcg_10(lambda query, passages: np.array([1.0, 2.0, 0.0]), JUDGED)
    assert quality == pytest.approx(1 / (1 + 1 / np.log2(3)), abs=1e-6)


def test_the_logit_is_the_line_that_fits_judgements_best() -> None:
    rng = np.random.default_rng(7)
    queries, values = [], {}
    for number in range(200):
        passages = tuple(SetPassage(f"{number}/{n}", "", "") for n in range(10))
        cosines = rng.normal(0.8, 0.05, 10)
        relevant = rng.random(10) < 1 / (1 + np.exp(-(40 * cosines - 34)))
        qrels = {p.doc_id: 1 for p, right in zip(passages, relevant, strict=True) if right}
        queries.append(Judged(str(number), str(number), passages, qrels))
        values[str(number)] = cosines
    logit = fit_logit(lambda query, passages: values[query], [EvaluationSet("s", tuple(queries))])
    assert logit.scale == pytest.approx(40, rel=0.15)
    assert logit.scale * 0.8 + logit.offset == pytest.approx(-2, abs=0.3)
