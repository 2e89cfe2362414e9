"""What backends share: pairs to rows to batches to logits.

A backend adds `run`, which takes the rows of one batch. Threads run `streams` batches at once. A batch that does not
fit into memory is halved, and with it the budget of all later ones. Pairs are tokenised while the model runs.
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
from rerank_core.text import fingerprint as identity
from rerank_core.trace import span

WINDOWS = 4
"""Parts of a chunk that are tokenised, and sorted into batches, together: the next while the last one runs."""


class Encoder(Protocol):
    """Pairs to rows, as `rerank_core.inference.encoding.PairEncoder`."""

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Row]: ...

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray: ...


class BatchedScorer(ABC):
    """A scorer that works in batches. Safe to share between threads.

    Args:
        encoder: makes rows of pairs.
        fingerprint: identity of everything that changes a logit.
        max_tokens: most tokens of a batch, padding included.
        streams: batches that run at once.
        reads_tags: whether the model was trained with tags.
        chunk: preferred number of pairs per call of `score` (see `rerank_core.scoring.fault_tolerant.score_checked`).
        precision: a key of `rerank_core.scoring.batch_check.TOLERANCES`, by which batches are checked at the start.

    Attributes: `row_by_row`, why every row runs alone, or "".
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
        precision: str = "fp32",
    ) -> None:
        self._encoder, self._fingerprint, self._max_tokens = encoder, fingerprint, max_tokens
        self.reads_tags, self.chunk, self.halvings = reads_tags, chunk, 0
        self.precision, self.row_by_row = precision, ""
        self._window = max(1, chunk // WINDOWS)
        self._pool = ThreadPoolExecutor(streams)
        self._tokenising = ThreadPoolExecutor(1)

    device = "cpu"

    @abstractmethod
    def run(self, rows: Sequence[Row]) -> np.ndarray:
        """One float32 logit per row, shape [len(rows)].

        Raises:
            OutOfMemory: fewer rows may fit.
        """

    @property
    def fingerprint(self) -> str:
        """32 hex digits over the weights, the tokenizer, max_length, the engine and its precision."""
        return self._fingerprint

    @property
    def max_tokens(self) -> int:
        """Most tokens of a batch: as configured, or less after memory ran out."""
        return self._max_tokens

    def sample(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """The rows of some pairs, as `run` takes them."""
        return self._encoder.encode(pairs)

    def run_row_by_row(self, why: str) -> None:
        """Run every row alone from now on; another fingerprint, since scores of batches are not to be reused."""
        self._max_tokens, self.row_by_row = 1, why
        self._fingerprint = identity(self._fingerprint, "row by row")[:32]

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """One logit per pair: float32, shape [len(pairs)]; with two labels, the relevant one's minus the other's."""
        # By characters, so that rows of similar length come into one window; the longest first.
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        windows = [order[at : at + self._window] for at in range(0, len(order), self._window)]
        read = self._tokenising.map(lambda window: self._encode([pairs[i] for i in window]), windows)
        running = []
        for window, rows in zip(windows, read, strict=True):
            for batch in plan_batches([len(row.ids) for row in rows], self._max_tokens):
                indices = [window[i] for i in batch]
                running.append((indices, self._pool.submit(self._run, [rows[i] for i in batch])))
        logits = np.empty(len(pairs), np.float32)
        try:
            for indices, answer in running:
                logits[indices] = answer.result()
        finally:
            for _, answer in running:
                answer.cancel()  # the rest of a call that failed
        return logits

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair beyond max_length, which are cut off: int32, shape [len(pairs)]."""
        return self._encoder.overflow(pairs)

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        with span("tokenise", texts=2 * len(pairs)):
            return self._encoder.encode(pairs)

    def _run(self, rows: Sequence[Row]) -> np.ndarray:
        try:
            with span("run batch", rows=len(rows), tokens=len(rows) * len(rows[0].ids)):
                return self.run(rows)
        except OutOfMemory:
            if len(rows) == 1:
                raise
            # The first row is the longest. The smaller budget stays, or every batch would fail once.
            self._max_tokens = max(1, min(self._max_tokens, len(rows) * len(rows[0].ids) // 2))
            self.halvings += 1
        middle = len(rows) // 2
        return np.concatenate([self._run(rows[:middle]), self._run(rows[middle:])])


def one_logit(output: np.ndarray, *, relevant: int = 1) -> np.ndarray:
    """float32 of shape [rows] from a model's output of shape [rows], [rows, 1] or [rows, 2].

    Args:
        output: of the model.
        relevant: index of the relevant one of two labels, whose logit the other's is subtracted from.
    """
    if output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1):
        return output.reshape(-1).astype(np.float32)
    if output.ndim == 2 and output.shape[1] == 2:
        wide = output.astype(np.float32)
        return wide[:, relevant] - wide[:, 1 - relevant]
    raise ModelError(
        f"the output has shape {list(output.shape)}, not [rows, 1] or [rows, 2]: an embedding model, a "
        "generative one or a classifier of more labels. Export a cross-encoder"
    )
