"""What a worker process opens once and its stages share: the model, and what reads passages."""

from __future__ import annotations

import functools
from collections.abc import Callable

from apache_beam.utils.shared import Shared

from pipelines.previous import read_facts
from rerank_core.config import Config
from rerank_core.features import default_recogniser
from rerank_core.features.reader import PassageReader
from rerank_core.scoring.scorer import Scorer, ScoringFailed


class WorkersModel:
    """The model as the stages that score share it: one copy a process, loaded when it is first needed."""

    def __init__(self, load: Callable[[], Scorer], fingerprint: str):
        self._load, self._fingerprint, self._shared = load, fingerprint, Shared()

    def get(self) -> Scorer:
        """The model.

        Raises:
            ScoringFailed: it is not the one that the job was started with.
        """
        scorer: Scorer = self._shared.acquire(self._load)
        if scorer.fingerprint != self._fingerprint:
            raise ScoringFailed(
                f"this worker's model has fingerprint {scorer.fingerprint}, the job was started with "
                f"{self._fingerprint}: give every worker the same model files"
            )
        return scorer


class WorkersReader:
    """What reads passages, as the stages that need entities share it: one a process."""

    def __init__(
        self, config: Config, *, facts_fingerprint: str, previous: tuple[str, ...], threads: int = 0
    ):
        self._config, self._fingerprint = config.tags, facts_fingerprint
        self._previous, self._threads, self._shared = previous, threads, Shared()

    def get(self) -> PassageReader:
        """The reader.

        Raises:
            ModelError: this process has another recogniser than the job was started with.
        """
        reader: PassageReader = self._shared.acquire(self._open)
        return reader

    def _open(self) -> PassageReader:
        return PassageReader(
            default_recogniser(self._config, threads=self._threads),
            facts_fingerprint=self._fingerprint,
            look_up=functools.partial(read_facts, self._previous),
        )
