"""Exact search, against every product computed: copies and near copies of passages included, by both engines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.candidates import dense
from rerank_core.candidates.dense import DenseIndex, has_faiss
from rerank_core.config.remining import Index
from rerank_core.errors import MissingEngine


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def make(seed: int, passages: int, *, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries, and passages of which only so many differ by more than float32 can tell."""
    draw = np.random.default_rng(seed)
    texts = draw.normal(size=(distinct, 8))
    chosen = texts[draw.integers(distinct, size=passages)]
    return unit(draw.normal(size=(5, 8))), unit(chosen + draw.integers(2, size=(passages, 1)) * 1e-7)


def oracle(queries: np.ndarray, passages: np.ndarray, top_k: int) -> np.ndarray:
    products = (queries.astype(np.float64)[:, None] * passages.astype(np.float64)[None]).sum(2)
    return np.argsort(-np.round(products, 9), axis=1, kind="stable")[:, :top_k]


@pytest.fixture(params=["numpy", "faiss"])
def index(request: pytest.FixtureRequest) -> Index:
    if request.param == "faiss":
        pytest.importorskip("faiss", reason="needs FAISS: pip install 'nightrank[faiss]'")
    kind: Index = request.param
    return kind


def check(index: Index, seed: int, passages: int, distinct: int, top_k: int) -> None:
    asked, held = make(seed, passages, distinct=distinct)
    found = DenseIndex(held, index=index).nearest(asked, top_k=top_k)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, oracle(asked, held, top_k))


CASES = (st.integers(0, 99), st.integers(1, 80), st.integers(1, 80), st.integers(1, 40))


@given(*CASES)
@settings(deadline=None, max_examples=100)
def test_numpy_against_the_oracle(seed: int, passages: int, distinct: int, top_k: int) -> None:
    check("numpy", seed, passages, distinct, top_k)


@given(*CASES)
@settings(deadline=None, max_examples=100)
def test_faiss_against_the_oracle(seed: int, passages: int, distinct: int, top_k: int) -> None:
    pytest.importorskip("faiss", reason="needs FAISS: pip install 'nightrank[faiss]'")
    check("faiss", seed, passages, distinct, top_k)


def test_blocks_do_not_show(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_PASSAGES", 7)
    monkeypatch.setattr(dense, "_QUERIES", 2)
    for distinct in (1, 3, 200):
        check(index, 5, 200, distinct, 30)


def test_nothing_to_search_finds_nothing(index: Index) -> None:
    queries, passages = make(0, 3, distinct=3)
    assert DenseIndex(passages[:0], index=index).nearest(queries, top_k=4).shape == (5, 0)
    assert DenseIndex(passages, index=index).nearest(queries[:0], top_k=4).shape == (0, 0)
    with pytest.raises(ValueError, match="top_k is 0"):
        DenseIndex(passages, index=index).nearest(queries, top_k=0)


def test_faiss_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "has_faiss", lambda: False)
    with pytest.raises(MissingEngine, match=r"pip install 'nightrank\[faiss\]'"):
        DenseIndex(np.ones((1, 2), np.float32), index="faiss")
    queries, passages = make(1, 9, distinct=9)
    found = DenseIndex(passages, index="auto").nearest(queries, top_k=3)
    np.testing.assert_array_equal(found, oracle(queries, passages, 3))


def test_auto_asks_what_is_installed() -> None:
    try:
        import faiss  # noqa: F401
    except ImportError:
        assert not has_faiss()
    else:
        assert has_faiss()
