"""What a system makes of judged questions, through the functions of a night (rerank_core.stages, rerank_core.ranking).

So what is measured or fitted on is what would be served: the same tags, inputs, fusion, ties, and a pair that cannot be
scored leaves the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pipelines.evaluate.judged_sets import JudgedSet, candidates
from pipelines.evaluate.systems import Opened
from rerank_core import stages
from rerank_core.config.night import Tagging
from rerank_core.evaluation.tag_ablation import retag
from rerank_core.features.reader import PassageReader
from rerank_core.features.tagger import default_recogniser, facts_fingerprint
from rerank_core.ranking import fusion
from rerank_core.stages import Rejects
from schemas.records import Query, QueryGroup

QUERIES_AT_ONCE = 32

Count = Callable[[int], None]


class Scored(NamedTuple):
    """Some questions as a system scored them in one mode of tags, not yet in order."""

    mode: str
    groups: list[QueryGroup]  # candidates that could not be scored are gone
    failed: int  # so many


def in_chunks(judged: JudgedSet, *, tagged: bool) -> Iterator[tuple[list[QueryGroup], Rejects]]:
    """A set's questions with their candidates, some at a time, and what is wrong with candidates."""
    reader = _reader() if tagged else None
    for queries in _chunks(judged.queries):
        groups, rejected = candidates(judged, queries)
        yield (_tagged(groups, reader) if reader else groups), rejected


def scored(groups: Sequence[QueryGroup], one: Opened, *, on_scored: Count) -> Iterator[Scored]:
    """The groups with the model's logits, in each of the system's modes of tags.

    A model that reads no tags is asked once.

    Raises:
        ScoringFailed: the model is broken.
    """
    assert one.scorer is not None, f"{one.system.name} has no model"
    if one.cheap:
        groups, _ = stages.first_stage_scores(groups, one.cheap)
    if one.reads_tags:
        for mode in one.modes:
            found, failed = _logits(
                [retag(g, mode=mode) for g in groups], one, tagged=True, on_scored=on_scored
            )
            yield Scored(mode, found, failed)
    else:
        found, failed = _logits(groups, one, tagged=False, on_scored=on_scored)
        for mode in one.modes:
            yield Scored(mode, [retag(group, mode=mode) for group in found], failed)


def fused(groups: Sequence[QueryGroup], one: Opened) -> list[QueryGroup]:
    """The groups with the logits that decide the order, where the system has fusion weights."""
    return [fusion.fuse(group, one.fusion) for group in groups] if one.fusion else list(groups)


def _logits(
    groups: Sequence[QueryGroup], one: Opened, *, tagged: bool, on_scored: Count
) -> tuple[list[QueryGroup], int]:
    assert one.scorer is not None
    model = one.scorer.fingerprint
    keyed = [stages.reuse_scores(group, {}, model_fingerprint=model, tagged=tagged) for group in groups]
    found, rejected = stages.score_groups(keyed, one.scorer, tagged=tagged, on_scored=on_scored)
    return [group for group in found if group.candidates], sum(r.unit == "pair" for r in rejected)


def _reader() -> PassageReader:
    recogniser = default_recogniser(Tagging())
    known = facts_fingerprint(recogniser)
    return PassageReader(recogniser, facts_fingerprint=known, look_up=lambda keys: {})


def _tagged(groups: Sequence[QueryGroup], reader: PassageReader) -> list[QueryGroup]:
    passages = stages.passages_to_read(groups)
    found = reader.read(passages)
    facts = {passage: found.facts[key] for passage, key in zip(passages, found.keys, strict=True)}
    return [stages.tag_group(group, facts, config=Tagging()) for group in groups]


def _chunks(queries: Sequence[Query]) -> Iterator[Sequence[Query]]:
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        yield queries[start : start + QUERIES_AT_ONCE]
