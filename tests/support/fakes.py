"""Stand-ins shared by tests, in a module of their own: worker processes import them by name."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerank_core.errors import ScoringFailed


class FakeScorer:
    """A logit from the words that both sides share, and a hash so that few are equal. No model, constant time.

    Args:
        name: goes into the fingerprint; another name is another model.
        nan_for: a pair whose passage side holds this gets NaN.
        fails_for: likewise, but the call raises ValueError, as a backend does on input it cannot take.
        broken: every call raises ScoringFailed.
        seen: a file that gets one JSON line a scored pair, written across processes.
        seconds: how long each call takes.
        constant: every pair gets the same logit.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        nan_for: str = "",
        fails_for: str = "",
        broken: bool = False,
        seen: str = "",
        seconds: float = 0.0,
        constant: bool = False,
    ) -> None:
        self._name, self._nan_for, self._fails_for = name, nan_for, fails_for
        self._broken, self._seen, self._seconds, self._constant = broken, seen, seconds, constant

    reads_tags = True

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._name.encode()).hexdigest()[:16]

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        if self._seen:
            with Path(self._seen).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(list(pair)) + "\n" for pair in pairs)
        time.sleep(self._seconds)
        if self._broken:
            raise ScoringFailed("the fake model is broken on purpose")
        if self._fails_for and any(self._fails_for in passage for _, passage in pairs):
            raise ValueError(f"cannot take {self._fails_for!r}")
        return np.array([self._logit(*pair) for pair in pairs], dtype=np.float32)

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([max(0, len(passage.split()) - 60) for _, passage in pairs], dtype=np.int32)

    def _logit(self, query: str, passage: str) -> float:
        if self._nan_for and self._nan_for in passage:
            return float("nan")
        if self._constant:
            return 0.5
        shared = set(query.lower().split()) & set(passage.lower().replace(".", " ").split())
        digest = hashlib.sha256("\n".join((self._name, query, passage)).encode()).digest()
        return len(shared) - 3 + int.from_bytes(digest[:2], "little") / 65536


def fake(name: str = "fake", **options: Any) -> Callable[[], FakeScorer]:
    """A loader for `pipelines.nightly.run.run(load=...)`."""
    return functools.partial(FakeScorer, name, **options)


def forbidden(name: str = "fake") -> Callable[[], FakeScorer]:
    """A loader of the same model as `fake(name)`, which must never be asked for a score."""
    return functools.partial(_Forbidden, name)


class _Forbidden(FakeScorer):
    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        raise ScoringFailed(f"nothing may be scored, but {len(pairs)} pairs were: {pairs[0]!r}")


def load_fake(model: str | None = None, **options: Any) -> FakeScorer:
    """In place of `rerank_core.scoring.load.load_scorer`; takes its arguments and ignores them."""
    return FakeScorer()
