"""A score cache in a file, for judged sets that are measured and fitted on repeatedly.

The key is the exact input and the model's fingerprint (reuse.py), so a changed model, tag or text never gets a stale
score. A night does not use it: its cache is the previous run.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from rerank_core.config.night import Tagging
from rerank_core.errors import ConfigError
from rerank_core.scoring.fault_tolerant import CHUNK
from rerank_core.scoring.protocol import MeasuresOverflow, Scorer, WantsChunks, reads_tags
from rerank_core.scoring.reuse import input_fingerprint

FILE = "scores.sqlite"
_KEYS_PER_QUERY = 500


class CachedScorer:
    """Scores as `scorer` does, and calls it only for pairs that are not in FOLDER/scores.sqlite.

    Args:
        scorer: any.
        folder: of the file; several processes may use it.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, scorer: Scorer, folder: Path) -> None:
        self._scorer, self._path = scorer, folder / FILE
        self.fingerprint = scorer.fingerprint
        self.reads_tags = reads_tags(scorer, Tagging())
        self.chunk = scorer.chunk if isinstance(scorer, WantsChunks) else CHUNK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._open() as file:
                file.execute(
                    "CREATE TABLE IF NOT EXISTS scores (input BLOB PRIMARY KEY, logit REAL) WITHOUT ROWID"
                )
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"cannot use the score cache {self._path} ({error}); remove it, or name another folder"
            ) from None

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """One logit per pair: float32, shape [len(pairs)]. Only finite ones are stored."""
        inputs = [
            bytes.fromhex(input_fingerprint(*pair, model_fingerprint=self.fingerprint)) for pair in pairs
        ]
        with self._open() as file:
            logits = dict(_look_up(file, inputs))
        missing = [n for n, key in enumerate(inputs) if key not in logits]
        if missing:
            scored = self._scorer.score([pairs[n] for n in missing])
            new = {inputs[n]: float(logit) for n, logit in zip(missing, scored, strict=True)}
            logits |= new
            with self._open() as file:
                rows = [(key, logit) for key, logit in new.items() if np.isfinite(logit)]
                file.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", rows)
        return np.array([logits[key] for key in inputs], np.float32)

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair beyond max_length; 0 if the scorer does not count them."""
        if isinstance(self._scorer, MeasuresOverflow):
            return self._scorer.overflow(pairs)
        return np.zeros(len(pairs), np.int32)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as file, file:
            yield file


def _look_up(file: sqlite3.Connection, inputs: Sequence[bytes]) -> Iterable[tuple[bytes, float]]:
    for start in range(0, len(inputs), _KEYS_PER_QUERY):
        some = inputs[start : start + _KEYS_PER_QUERY]
        parameters = ",".join("?" * len(some))
        yield from file.execute(f"SELECT input, logit FROM scores WHERE input IN ({parameters})", some)
