"""Exact nearest-neighbour search by the dot product of vectors, with numpy alone or with FAISS.

Both return the same neighbours: each finds a few more than requested in float32, whose last digits depend on the
engine, and products in float64 then select and order the result.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from rerank_core.config.remining import Index
from rerank_core.errors import MissingEngine

SLACK = 16
"""Neighbours found beyond those requested, among which the exact products select."""

# An upper bound for the error of float32 in the product of two vectors of length 1.
_DOUBT = 1e-4
_QUERIES, _PASSAGES = 256, 16_384


def has_faiss() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("faiss") is not None


class DenseIndex:
    """Passages by their vectors.

    Args:
        passages: float32 [passages, size], of length 1; may be a mapped file.
        index: "faiss" (IndexFlatIP, which copies the passages into memory), "numpy" (matrix products in blocks), or
            "auto": FAISS where it is installed.

    Raises:
        MissingEngine: FAISS is requested but not installed.
    """

    def __init__(self, passages: np.ndarray, *, index: Index = "auto") -> None:
        if index == "faiss" and not has_faiss():
            raise MissingEngine(
                "index = 'faiss', but faiss is not installed: pip install 'nightrank[faiss]', or set index = 'auto'"
            )
        self._passages = passages
        self._faiss = _faiss(passages) if index != "numpy" and len(passages) and has_faiss() else None

    def nearest(self, queries: np.ndarray, *, top_k: int) -> np.ndarray:
        """The `top_k` passages of each query by dot product, best first, ties by number.

        Args:
            queries: float32 [queries, size], of length 1.
            top_k: number of neighbours; fewer if there are fewer passages.

        Returns:
            Numbers of passages: int64 [queries, min(top_k, passages)].
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be at least 1")
        count = min(top_k + SLACK, len(self._passages))
        if not len(queries) or not count:
            return np.empty((len(queries), 0), np.int64)
        if self._faiss is not None:
            near = self._faiss.search(np.ascontiguousarray(queries, np.float32), count)[1]
        else:
            blocks = (queries[start : start + _QUERIES] for start in range(0, len(queries), _QUERIES))
            near = np.concatenate([_products(block, self._passages, count) for block in blocks])
        pairs = zip(queries, near, strict=True)
        return np.stack([_exact(query, numbers, self._passages, top_k) for query, numbers in pairs])


def _faiss(passages: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexFlatIP(passages.shape[1])
    for start in range(0, len(passages), _PASSAGES):
        index.add(np.ascontiguousarray(passages[start : start + _PASSAGES], np.float32))
    return index


def _products(queries: np.ndarray, passages: np.ndarray, count: int) -> np.ndarray:
    """Approximately the best `count` passages of each query, in any order: int64 [queries, count]."""
    scores, numbers = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(passages), _PASSAGES):
        block = passages[start : start + _PASSAGES]
        here = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
        scores = np.concatenate([scores, queries @ block.T], axis=1)
        numbers = np.concatenate([numbers, here], axis=1)
        if scores.shape[1] > count:
            best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
            scores = np.take_along_axis(scores, best, axis=1)
            numbers = np.take_along_axis(numbers, best, axis=1)
    return numbers


def _exact(query: np.ndarray, near: np.ndarray, passages: np.ndarray, top_k: int) -> np.ndarray:
    """The best `top_k` passages of one query by exact products."""
    numbers, scores = _ordered(query, passages, np.sort(near))
    if len(numbers) < len(passages) and scores[top_k - 1] - scores[-1] < _DOUBT:
        # More passages are this close (copies of one text) than the slack holds: search all passages.
        least = scores[top_k - 1] - _DOUBT
        close = np.concatenate(
            [
                start + np.flatnonzero(passages[start : start + _PASSAGES] @ query >= least)
                for start in range(0, len(passages), _PASSAGES)
            ]
        )
        numbers, _ = _ordered(query, passages, close)
    return numbers[:top_k]


def _ordered(query: np.ndarray, passages: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Passages, given by rising number, ordered by exact product; and the products, rounded so that copies tie."""
    scores = np.round((passages[numbers].astype(np.float64) * query.astype(np.float64)).sum(1), 9)
    order = np.argsort(-scores, kind="stable")
    return numbers[order], scores[order]
