from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rerank_core
from rerank_core.config.backends import BACKENDS, Backend
from rerank_core.errors import ScoringFailed
from rerank_core.features.render import passage_text, render
from rerank_core.features.tagger import tag


class Overlap:
    """Counts the words that both sides share."""

    fingerprint = "overlap"
    reads_tags = False

    def __init__(self, *, bad: str = "never") -> None:
        self.bad = bad
        self.seen: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.seen += pairs
        if any(self.bad in passage for _, passage in pairs):
            raise RuntimeError("cannot take it")
        shared = [len(set(q.lower().split()) & set(p.lower().split())) for q, p in pairs]
        return np.array(shared, np.float32)


QUERY = "Who wrote the novel Dune?"
PASSAGES = ["Sand moves.", ("Dune", "Dune is a novel that Frank Herbert wrote"), ("Herbert", "He wrote it.")]


def test_passages_come_by_falling_logit() -> None:
    ranked = rerank_core.rank(QUERY, PASSAGES, model=Overlap(), tags=False)
    assert [(passage.index, passage.logit) for passage in ranked] == [(1, 3.0), (2, 1.0), (0, 0.0)]
    assert [passage.score for passage in ranked] == pytest.approx([0.952574, 0.731059, 0.5], abs=1e-6)
    assert all(passage.tags is None for passage in ranked)


@pytest.mark.parametrize("reads_tags", [True, False])
def test_the_input_is_the_nights(reads_tags: bool) -> None:
    scorer = Overlap()
    scorer.reads_tags = reads_tags
    ranked = rerank_core.rank(f"  {QUERY} ", PASSAGES, model=scorer)
    titled = [("", "Sand moves."), *PASSAGES[1:]]
    query = QUERY.removesuffix("?")  # normalised as the log's queries are
    tags = tag(query, titled)
    rendered = [
        render(query, passage_text(*p), t if reads_tags else None) for p, t in zip(titled, tags, strict=True)
    ]
    assert set(scorer.seen) == {(side.query, side.passage) for side in rendered}
    assert {passage.index: passage.tags for passage in ranked} == dict(enumerate(tags))


def test_ties_keep_the_given_order_and_top_n_cuts() -> None:
    ranked = rerank_core.rank("x", ["a", "b", "x", "c"], model=Overlap(), tags=False, top_n=3)
    assert [passage.index for passage in ranked] == [2, 0, 1]


def test_no_passages_load_no_model() -> None:
    assert rerank_core.rank(QUERY, [], model="/no/such/folder") == []


def test_a_passage_that_cannot_be_scored_is_named() -> None:
    with pytest.raises(
        ScoringFailed, match=r"passage 2 cannot be scored: model_error: RuntimeError: cannot take it"
    ):
        rerank_core.rank(QUERY, ["a", "b", "poison"], model=Overlap(bad="poison"))


def test_a_folder_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []

    def load(model: str) -> Overlap:
        loaded.append(Path(model))
        return Overlap()

    monkeypatch.setitem(BACKENDS, "onnx", Backend(load))
    rerank_core._cached_scorer.cache_clear()
    try:
        for model in ("one", "one", "two", None, None):
            rerank_core.rank(QUERY, PASSAGES, model=model)
    finally:
        rerank_core._cached_scorer.cache_clear()
    assert [folder.name for folder in loaded] == ["one", "two", "default"]


@pytest.mark.parametrize(
    ("query", "passages", "options", "error", "said"),
    [
        ("", ["a"], {}, ValueError, "query '' holds no text"),
        (" ?! ", ["a"], {}, ValueError, "holds no text"),
        (7, ["a"], {}, TypeError, "query is a int, 7; give a str"),
        ("q", "a passage", {}, TypeError, "passages is one str"),
        ("q", ["a", 3], {}, TypeError, "passage 1 is 3; give a text"),
        ("q", [("t", "x", "y")], {}, TypeError, "passage 0 is"),
        ("q", [("t", None)], {}, TypeError, "passage 0 is"),
        ("q", [b"x"], {}, TypeError, "passage 0 is b'x'"),
        ("q", ["a"], {"top_n": 0}, ValueError, "top_n is 0"),
    ],
)
def test_bad_input_is_named(
    query: Any, passages: Any, options: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        rerank_core.rank(query, passages, model=Overlap(), **options)
