"""What a worker process opens once and its stages share: the models, and the reader of passages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from apache_beam.utils.shared import Shared

from pipelines.nightly.facts import StoredFacts, read_facts
from pipelines.nightly.models import Model, Tagger
from pipelines.nightly.prepare import Night
from pipelines.storage.vectors import KeptVectors
from rerank_core.config.night import Tagging
from rerank_core.errors import ScoringFailed
from rerank_core.features.reader import PassageReader
from rerank_core.features.tagger import default_recogniser
from rerank_core.scoring.protocol import KeepsVectors, Scorer
from rerank_core.trace import span

T = TypeVar("T")


class OncePerProcess(Generic[T]):
    """Opens something at its first use; all pickled copies in one process share it.

    Beam's Shared keeps only what was acquired last: two of them would evict each other at every shard. So every copy
    keeps a reference of its own.

    Args:
        load: opens it.
        opened: what is open already in this process, whose copies then share it; None: nothing.
    """

    def __init__(self, load: Callable[[], T], *, opened: T | None = None) -> None:
        self._load, self._shared = load, Shared()
        self._loaded: T | None = self._shared.acquire(lambda: opened) if opened is not None else None

    def get(self) -> T:
        """What `load` returns, or returned at the first use in this process."""
        if self._loaded is None:
            self._loaded = self._shared.acquire(self._load)
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}


SharedScorer = OncePerProcess[Scorer]
SharedReader = OncePerProcess[PassageReader]


class WorkerResources(NamedTuple):
    """What every worker process opens once."""

    scorer: SharedScorer
    first_stage: SharedScorer | None
    reader: SharedReader | None


def worker_resources(night: Night, *, writes: bool = True) -> WorkerResources:
    """The resources of a night, to be opened by its workers.

    Args:
        writes: whether new vectors are kept.
    """
    models = night.models
    most = 1_000_000 * night.config.reuse.vectors_mb if writes else 0
    shared = functools.partial(shared_scorer, vectors=night.run.vectors, most=most)
    return WorkerResources(
        shared(models.scorer),
        shared(models.first_stage) if models.first_stage else None,
        _shared_reader(night.config.tags, models.tagger, night.previous.facts) if models.tagger else None,
    )


def shared_scorer(model: Model, *, vectors: str | None = None, most: int = 0) -> SharedScorer:
    """Loads the model in a worker; `get` raises ScoringFailed if its fingerprint is not the expected one.

    Args:
        model: any.
        vectors: the folder of kept vectors; None: there is none.
        most: bytes of new ones that a process writes.
    """
    load = functools.partial(_load_scorer, model._replace(opened=None), vectors, most)
    if model.opened:
        _keep_vectors(model.opened, vectors, most)
    return OncePerProcess(load, opened=model.opened)


def _keep_vectors(scorer: Scorer, folder: str | None, most: int) -> None:
    if isinstance(scorer, KeepsVectors):
        scorer.vectors = KeptVectors(Path(folder, scorer.fingerprint), most=most) if folder else None


def _load_scorer(model: Model, vectors: str | None, most: int) -> Scorer:
    with span("load model"):
        scorer = model.load()
    if scorer.fingerprint != model.fingerprint:
        raise ScoringFailed(
            f"this worker's model has fingerprint {scorer.fingerprint}, but the night was started with "
            f"{model.fingerprint}: give every worker the same model files"
        )
    _keep_vectors(scorer, vectors, most)
    return scorer


def _shared_reader(config: Tagging, tagger: Tagger, facts: StoredFacts) -> SharedReader:
    """Reads passages in a worker; `get` raises ModelError if its recogniser is not the expected one."""
    return OncePerProcess(functools.partial(_open_reader, config, tagger, facts))


def _open_reader(config: Tagging, tagger: Tagger, facts: StoredFacts) -> PassageReader:
    with span("load recogniser"):
        recogniser = default_recogniser(config, threads=tagger.threads)
    return PassageReader(
        recogniser,
        facts_fingerprint=tagger.facts_fingerprint,
        look_up=functools.partial(read_facts, facts),
    )
