"""What a scorer is, and what it may offer beside that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from rerank_core.config.night import Tagging


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


@runtime_checkable
class Halves(Protocol):
    """A scorer that halves its batches when memory runs out, and counts how often."""

    @property
    def halvings(self) -> int:
        """How often so far."""
        ...
