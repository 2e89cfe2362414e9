"""What a scorer is, and what it may offer beside that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from rerank_core.config.night import Tagging

if TYPE_CHECKING:
    from rerank_core.inference.encoding import Row


class Scorer(Protocol):
    """Scores (query side, passage side) pairs, both as `rerank_core.features.render` writes them."""

    @property
    def fingerprint(self) -> str:
        """Identity of weights, tokenizer and every setting that changes a logit."""
        ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """One logit per pair: float32, shape [len(pairs)], in the pairs' order."""
        ...


@runtime_checkable
class MeasuresOverflow(Protocol):
    """A scorer that counts the tokens it cuts off."""

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair beyond max_length: int32, shape [len(pairs)], mostly 0."""
        ...


@runtime_checkable
class ReadsTags(Protocol):
    """A scorer that knows whether its model was trained with tags; any other counts as trained without."""

    @property
    def reads_tags(self) -> bool:
        """Whether the query side should carry the tags."""
        ...


def reads_tags(scorer: Scorer, config: Tagging) -> bool:
    """Whether the model's input carries tags: as configured, or for "auto" as the model was trained."""
    if not config.enabled or config.model_input == "plain":
        return False
    return config.model_input == "tagged" or (isinstance(scorer, ReadsTags) and scorer.reads_tags)


@runtime_checkable
class WantsChunks(Protocol):
    """A scorer with a preferred number of pairs per call: larger on a GPU than on a CPU."""

    @property
    def chunk(self) -> int:
        """Pairs per call."""
        ...


class Embedded(NamedTuple):
    """A text's vector."""

    vector: np.ndarray  # float32 [size], of length 1
    overflow: int  # tokens of the text beyond max_length


class VectorStore(Protocol):
    """Vectors of passages by 16-byte keys, kept from one night to the next. Safe to share between threads."""

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, Embedded]:
        """The vectors of these keys, as far as they are known."""
        ...

    def add(self, vectors: Mapping[bytes, Embedded]) -> None:
        """Take new vectors, to be written by `flush`."""
        ...

    def flush(self) -> None:
        """Write what was added since the last time."""
        ...


@runtime_checkable
class KeepsVectors(Protocol):
    """A scorer that embeds passages once, whichever night asks for them."""

    vectors: VectorStore | None


def flush_vectors(scorer: Scorer) -> None:
    """Let a scorer that keeps vectors write its new ones."""
    if isinstance(scorer, KeepsVectors) and scorer.vectors:
        scorer.vectors.flush()


@runtime_checkable
class Halves(Protocol):
    """A scorer that halves its batches when memory runs out, and counts how often."""

    @property
    def halvings(self) -> int:
        """How often so far."""
        ...


@runtime_checkable
class RunsBatches(Protocol):
    """A scorer that runs several rows at once: `rerank_core.scoring.batch_check` checks it when it is opened."""

    precision: str  # a key of `rerank_core.scoring.batch_check.TOLERANCES`
    device: str
    row_by_row: str  # why every row runs alone, or ""

    @property
    def max_tokens(self) -> int:
        """Most tokens of a batch, padding included; 1: each row alone."""
        ...

    def sample(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """A row of each pair, as `run` takes them."""
        ...

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        """One batch: a logit of each row, or a vector of length 1."""
        ...

    def run_row_by_row(self, why: str) -> None:
        """Run every row alone from now on, under another fingerprint: scores of batches are not to be reused."""
        ...


def why_row_by_row(scorer: Scorer) -> str:
    """Why every row of a scorer runs alone; "" if it runs in batches, or never did."""
    return scorer.row_by_row if isinstance(scorer, RunsBatches) else ""
