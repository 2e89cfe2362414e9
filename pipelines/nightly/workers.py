"""What a worker process opens once and its stages share: the model, and what reads passages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from apache_beam.utils.shared import Shared

from pipelines.nightly.prepare import Night
from pipelines.nightly.previous import read_facts
from rerank_core.config.night import Config
from rerank_core.errors import ScoringFailed
from rerank_core.features.reader import PassageReader
from rerank_core.features.tagger import default_recogniser
from rerank_core.scoring.protocol import Scorer

Opened = TypeVar("Opened")


class OncePerProcess(Generic[Opened]):
    """Opens something when it is first needed; its copies in one process, however they got there, share it.

    Beam's Shared keeps only the last thing that anybody acquired: two of them would put each other out at every
    shard. So every copy holds what it got.
    """

    def __init__(self, open_it: Callable[[], Opened]) -> None:
        self._open, self._shared = open_it, Shared()
        self._held: Opened | None = None

    def get(self) -> Opened:
        """What `open_it` gives, or gave."""
        if self._held is None:
            self._held = self._shared.acquire(self._open)
        return self._held

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None}


WorkersModel = OncePerProcess[Scorer]
WorkersReader = OncePerProcess[PassageReader]


def workers_model(load: Callable[[], Scorer], fingerprint: str) -> WorkersModel:
    """The model of a job; `get` raises ScoringFailed where it is not the one that the job was started with."""
    return OncePerProcess(functools.partial(_open_model, load, fingerprint))


def workers_reader(
    config: Config, *, facts_fingerprint: str, previous: tuple[str, ...], threads: int
) -> WorkersReader:
    """The reader of a job; `get` raises ModelError where its recogniser is not that of the job's start."""
    return OncePerProcess(functools.partial(_open_reader, config, facts_fingerprint, previous, threads))


def _open_model(load: Callable[[], Scorer], fingerprint: str) -> Scorer:
    scorer = load()
    if scorer.fingerprint != fingerprint:
        raise ScoringFailed(
            f"this worker's model has fingerprint {scorer.fingerprint}, the job was started with {fingerprint}: "
            "give every worker the same model files"
        )
    return scorer


def _open_reader(
    config: Config, facts_fingerprint: str, previous: tuple[str, ...], threads: int
) -> PassageReader:
    return PassageReader(
        default_recogniser(config.tags, threads=threads),
        facts_fingerprint=facts_fingerprint,
        look_up=functools.partial(read_facts, previous),
    )


class Workers(NamedTuple):
    """What every worker process opens once."""

    scorer: WorkersModel
    cheap: WorkersModel | None
    reader: WorkersReader | None


def open_workers(night: Night) -> Workers:
    cheap = workers_model(night.load_cheap, night.cheap_fingerprint) if night.load_cheap else None
    return Workers(workers_model(night.load, night.model_fingerprint), cheap, _reader(night))


def _reader(night: Night) -> WorkersReader | None:
    if night.facts_fingerprint is None:
        return None
    return workers_reader(
        night.config,
        facts_fingerprint=night.facts_fingerprint,
        previous=night.previous.facts_files,
        threads=night.threads,
    )
