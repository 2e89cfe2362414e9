"""A system's scores of judged questions, by the functions of a night (rerank_core.stages, rerank_core.ranking).

So what is measured or fitted on is what would be served: the same tags, inputs, fusion and ties, and a pair that
cannot be scored leaves the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pipelines.evaluate.judged_sets import JudgedSet, candidates
from pipelines.evaluate.systems import LoadedSystem
from rerank_core import stages
from rerank_core.config.night import Tagging
from rerank_core.evaluation.tag_ablation import retag
from rerank_core.features.reader import PassageReader
from rerank_core.features.tagger import default_recogniser, facts_fingerprint
from rerank_core.ranking import fusion
from rerank_core.stages import Rejects
from schemas.records import QueryGroup

QUERIES_AT_ONCE = 32

Count = Callable[[int], None]
"""Called with the number of inputs scored since the last call."""


class Scored(NamedTuple):
    """Some questions as a system scored them in one mode of tags, not yet in order."""

    mode: str
    groups: list[QueryGroup]  # without the candidates that could not be scored
    failed: int  # number of these


def candidate_groups(judged: JudgedSet, *, tagged: bool) -> Iterator[tuple[list[QueryGroup], Rejects]]:
    """A set's questions with their candidates, QUERIES_AT_ONCE at a time, and the records that were rejected."""
    reader = _reader() if tagged else None
    for start in range(0, len(judged.queries), QUERIES_AT_ONCE):
        groups, rejected = candidates(judged, judged.queries[start : start + QUERIES_AT_ONCE])
        yield (_tagged(groups, reader) if reader else groups), rejected


def score_by_mode(
    groups: Sequence[QueryGroup], system: LoadedSystem, *, on_scored: Count
) -> Iterator[Scored]:
    """The groups with the model's logits, in each of the system's modes of tags.

    A model that reads no tags scores them once.

    Raises:
        ScoringFailed: the model is broken.
    """
    if system.bi_encoder:
        groups, _ = stages.first_stage_scores(groups, system.bi_encoder)
    if system.reads_tags:
        for mode in system.tag_modes:
            retagged = [retag(group, mode=mode) for group in groups]
            scored, failed = _score(retagged, system, tagged=True, on_scored=on_scored)
            yield Scored(mode, scored, failed)
    else:
        scored, failed = _score(groups, system, tagged=False, on_scored=on_scored)
        for mode in system.tag_modes:
            yield Scored(mode, [retag(group, mode=mode) for group in scored], failed)


def fuse_groups(groups: Sequence[QueryGroup], system: LoadedSystem) -> list[QueryGroup]:
    """The groups with fused logits, if the system has fusion weights."""
    return [fusion.fuse(group, system.fusion) for group in groups] if system.fusion else list(groups)


def _score(
    groups: Sequence[QueryGroup], system: LoadedSystem, *, tagged: bool, on_scored: Count
) -> tuple[list[QueryGroup], int]:
    assert system.scorer is not None, f"{system.system.name} has no model"
    model = system.scorer.fingerprint
    keyed = [stages.reuse_scores(group, {}, model_fingerprint=model, tagged=tagged) for group in groups]
    scored, rejected = stages.score_groups(keyed, system.scorer, tagged=tagged, on_scored=on_scored)
    return [group for group in scored if group.candidates], sum(r.unit == "pair" for r in rejected)


def _reader() -> PassageReader:
    recogniser = default_recogniser(Tagging())
    fingerprint = facts_fingerprint(recogniser)
    return PassageReader(recogniser, facts_fingerprint=fingerprint, look_up=lambda keys: {})


def _tagged(groups: Sequence[QueryGroup], reader: PassageReader) -> list[QueryGroup]:
    passages = stages.passages_to_read(groups)
    read = reader.read(passages)
    facts = {passage: read.facts[key] for passage, key in zip(passages, read.keys, strict=True)}
    return [stages.tag_group(group, facts, config=Tagging()) for group in groups]
