"""The dev figure: a model's own order, documents by their best unit, ties as BM25 had them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rerank_core.training.dev_measure import measure_model
from rerank_core.training.dev_set import DevQuery, DevSet


class Scores:
    """A model whose logit of a pair is written in the passage."""

    def __init__(self) -> None:
        self.training, self.seen = True, []

    def predict(self, pairs: list[tuple[str, str]], **_: Any) -> np.ndarray:
        self.training = False
        self.seen += pairs
        return np.array([float(passage) for _, passage in pairs], np.float32)

    def train(self, mode: bool) -> None:
        self.training = mode


def dev(doc_ids: str, logits: str, qrels: dict[str, int]) -> DevSet:
    passages = tuple(logits.split())
    tags = tuple(f"[HOP:{n}]" for n in range(len(passages)))
    return DevSet(
        "d", (DevQuery("q", "who", tuple(doc_ids.split()), passages, tags),), {"q": qrels, "other": {"x": 1}}
    )


@pytest.mark.parametrize(
    ("doc_ids", "logits", "mrr"),
    [
        ("a b c", "0.1 0.9 0.5", 1.0),  # b is relevant
        ("a b c", "0.9 0.5 0.5", 0.5),  # ties: b came before c
        ("c b a", "0.5 0.5 0.5", 0.5),
        ("a b a b", "0.3 0.1 0.4 0.2", 0.5),  # a's best, then b's best: b is second, not third
        ("a c", "0.1 0.2", 0.0),  # b was not found
    ],
)
def test_the_measures_are_of_the_models_order(doc_ids: str, logits: str, mrr: float) -> None:
    model = Scores()
    found = measure_model(model, dev(doc_ids, logits, {"b": 1}), tagged=False)
    assert found["MRR@10"] == pytest.approx(mrr)
    assert model.training


def test_tags_are_shown_to_a_model_that_reads_them() -> None:
    for tagged, query in ((True, "[HOP:0] who"), (False, "who")):
        model = Scores()
        measure_model(model, dev("a", "1", {"a": 1}), tagged=tagged)
        assert model.seen == [(query, "1")]
