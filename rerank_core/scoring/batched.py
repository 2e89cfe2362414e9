"""The part of a backend that all of them share: pairs to rows to batches to logits.

A backend adds `run`, which takes the rows of one batch. Threads share out the batches (`streams` run at once), and a
batch that does not fit into memory is halved, and with it the budget of all that follow. The rows of the next pairs are
read while the model works on these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from rerank_core.errors import ModelError, OutOfMemory
from rerank_core.inference.batching import plan_batches
from rerank_core.inference.encoding import Row

WINDOWS = 4
"""Parts of a chunk whose rows are made, and sorted into batches, together: the next is read while this one runs."""


class Encoder(Protocol):
    """Pairs to rows, as `rerank_core.inference.encoding.PairEncoder`."""

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Row]: ...

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray: ...


class BatchedScorer(ABC):
    """A scorer that works in batches. Safe to share between threads.

    Args:
        encoder: makes rows.
        fingerprint: identity of all that changes a logit.
        max_tokens: most tokens of one batch, padding counted.
        streams: batches that run at once.
        reads_tags: whether the model was trained to read tags.
        chunk: pairs that one call of `score` should get (see `rerank_core.scoring.fault_tolerant.score_checked`).
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        fingerprint: str,
        max_tokens: int,
        streams: int = 1,
        reads_tags: bool = False,
        chunk: int = 512,
    ) -> None:
        self._encoder, self._fingerprint, self._max_tokens = encoder, fingerprint, max_tokens
        self.reads_tags, self.chunk, self.halvings = reads_tags, chunk, 0
        self._window = max(1, chunk // WINDOWS)
        self._pool = ThreadPoolExecutor(streams)
        self._reader = ThreadPoolExecutor(1)

    @abstractmethod
    def run(self, rows: Sequence[Row]) -> np.ndarray:
        """One float32 logit a row, shape [len(rows)].

        Raises:
            OutOfMemory: fewer rows may fit.
        """

    @property
    def fingerprint(self) -> str:
        """32 hex digits over the weights, the tokenizer, max_length, the engine and its precision."""
        return self._fingerprint

    @property
    def max_tokens(self) -> int:
        """Most tokens of a batch: as configured, or what memory has left of it."""
        return self._max_tokens

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """One logit a pair: float32, shape [len(pairs)]; of two labels, label 1's logit minus label 0's."""
        # Characters stand in for tokens, so that rows of like length come into one window; the longest go first.
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        windows = [order[at : at + self._window] for at in range(0, len(order), self._window)]
        read = self._reader.map(lambda window: self._encoder.encode([pairs[i] for i in window]), windows)
        running = []
        for window, rows in zip(windows, read, strict=True):
            for batch in plan_batches([len(row.ids) for row in rows], self._max_tokens):
                places = [window[i] for i in batch]
                running.append((places, self._pool.submit(self._run, [rows[i] for i in batch])))
        logits = np.empty(len(pairs), np.float32)
        try:
            for places, answer in running:
                logits[places] = answer.result()
        finally:
            for _, answer in running:
                answer.cancel()  # what is left of a call that failed
        return logits

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair beyond max_length, which `score` does not see: int32, shape [len(pairs)]."""
        return self._encoder.overflow(pairs)

    def _run(self, rows: Sequence[Row]) -> np.ndarray:
        try:
            return self.run(rows)
        except OutOfMemory:
            if len(rows) == 1:
                raise
            # Rows are sorted: the first is the longest. The smaller budget stays, or every batch would fail once.
            self._max_tokens = max(1, min(self._max_tokens, len(rows) * len(rows[0].ids) // 2))
            self.halvings += 1
        middle = len(rows) // 2
        return np.concatenate([self._run(rows[:middle]), self._run(rows[middle:])])


def one_logit(output: np.ndarray) -> np.ndarray:
    """float32 of shape [rows] from a model's output of shape [rows], [rows, 1] or [rows, 2]."""
    if output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1):
        return output.reshape(-1).astype(np.float32)
    if output.ndim == 2 and output.shape[1] == 2:
        wide = output.astype(np.float32)
        return wide[:, 1] - wide[:, 0]
    raise ModelError(
        f"the output has shape {list(output.shape)}, not [rows, 1] or [rows, 2]: an embedding model, a "
        "generative one or a classifier of more labels. Export a cross-encoder"
    )
