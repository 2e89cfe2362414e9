"""What a scorer is, and what it may say of itself."""

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
        """One logit a pair: float32, shape [len(pairs)], in the pairs' order."""
        ...


@runtime_checkable
class MeasuresOverflow(Protocol):
    """A scorer that can say what it did not see."""

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair beyond max_length: int32, shape [len(pairs)], mostly 0."""
        ...


@runtime_checkable
class ReadsTags(Protocol):
    """A scorer that says whether its model was trained to read tags; one that does not say reads none."""

    @property
    def reads_tags(self) -> bool:
        """Whether the query side should carry the tags."""
        ...


def reads_tags(scorer: Scorer, config: Tagging) -> bool:
    """Whether the model's input carries tags: as configured, or as the model says of itself."""
    if not config.enabled or config.model_input == "plain":
        return False
    return config.model_input == "tagged" or (isinstance(scorer, ReadsTags) and scorer.reads_tags)


@runtime_checkable
class WantsChunks(Protocol):
    """A scorer that says how many pairs it should get at once: a GPU wants more than a CPU."""

    @property
    def chunk(self) -> int:
        """Pairs a call."""
        ...


@runtime_checkable
class Halves(Protocol):
    """A scorer that goes on with smaller batches when its memory is at its end, and counts how often it had to."""

    @property
    def halvings(self) -> int:
        """Times so far."""
        ...
