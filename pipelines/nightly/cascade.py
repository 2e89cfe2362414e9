"""The cascade on Beam: a sample of the queries is scored in full, and a rule fitted on it prunes the other queries.

The rule travels in the shards of the other queries, so they wait for the sample before their candidates are fetched. A
rule that arrived later would keep fetched and tagged candidates in the runner's memory meanwhile.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from pipelines.nightly.deadline import Deadline, once
from pipelines.nightly.shard_stage import Handled, ShardStage
from pipelines.nightly.shards import RankedShard, Shard
from pipelines.nightly.workers import SharedScorer
from pipelines.storage import filesystem
from rerank_core import stages
from rerank_core.ranking import cascade
from rerank_core.ranking.calibration import Calibration
from rerank_core.ranking.cascade import CascadeProfile, CascadeRule
from rerank_core.scoring.protocol import Scorer, flush_vectors
from schemas.records import QueryGroup

FILE = "cascade.json"


class FitCascade(beam.PTransform):
    """Ranked shards of the sample -> the night's rule; it is written to staging too, for the manifest."""

    def __init__(self, staging: str, *, max_loss: float, calibration: Calibration):
        self._staging, self._max_loss, self._calibration = staging, max_loss, calibration

    def expand(self, ranked: beam.PCollection) -> beam.PCollection:
        return (
            ranked
            | "Profile" >> beam.FlatMap(_profiles, self._calibration)
            | "Gather" >> beam.combiners.ToList()
            | "Fit" >> beam.Map(_fit, self._staging, self._max_loss)
        )


class TakeRule(beam.PTransform):
    """PCollection[Shard] -> the same shards, each with the rule."""

    def __init__(self, rule: beam.PCollection):
        self._rule = rule

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        return shards | beam.Map(_with_rule, pvalue.AsSingleton(self._rule))


class PruneCandidates(ShardStage):
    """Gives candidates a first-stage score, and by the shard's rule marks those that the model need not score."""

    makes = Shard

    def __init__(self, first_stage: SharedScorer | None, deadline: Deadline):
        self._first_stage, self._deadline = first_stage, deadline

    def handle(self, shard: Shard) -> Handled:
        groups, failed, missing = list(shard.groups), 0, 0
        pairs = sum(len(group.candidates) for group in groups)
        if first_stage := self._first_stage:
            missing = sum(c.first_stage is None for group in groups for c in group.candidates)
        if first_stage and missing:  # else the model is not even loaded
            left, some = self._deadline.of(shard.total), tuple(groups)
            scored = once(left, lambda: _first_stage_scores(some, first_stage.get()))
            if scored is None:
                return Handled(shard.give_up(), [], {"in": pairs, "out": 0, "not_reached": pairs})
            groups, failed = scored
        if shard.rule:
            groups = [cascade.prune(group, shard.rule) for group in groups]
        pruned = sum(c.pruned is not None for group in groups for c in group.candidates)
        tally = {"in": pairs, "out": pairs - pruned, "pruned": pruned}
        tally |= {"cheap_scored": missing, "cheap_failed": failed}
        return Handled(shard._replace(groups=tuple(groups)), [], tally)


def _first_stage_scores(groups: Sequence[QueryGroup], scorer: Scorer) -> tuple[list[QueryGroup], int]:
    scored = stages.first_stage_scores(groups, scorer)
    flush_vectors(scorer)
    return scored


def read_fitted(staging: str) -> dict[str, Any]:
    """The fields of `CascadeFit` and `CascadeRule` fitted on the sample; with a margin of None nothing is pruned."""
    fitted: dict[str, Any] = json.loads(filesystem.read_bytes(filesystem.join(staging, FILE)))
    return fitted


def _profiles(shard: RankedShard, calibration: Calibration) -> Iterator[CascadeProfile]:
    return (cascade.profile_of(group, calibration) for group in shard.groups)


def _fit(profiles: Sequence[CascadeProfile], staging: str, max_loss: float) -> CascadeRule:
    fitted = cascade.fit_cascade(profiles, max_loss=max_loss)
    rule = fitted.rule
    record = fitted._asdict() | rule._asdict() | {"max_loss": max_loss}
    record["margin"] = rule.margin if math.isfinite(rule.margin) else None
    del record["rule"]
    filesystem.write_bytes(filesystem.join(staging, FILE), json.dumps(record, sort_keys=True).encode())
    return rule


def _with_rule(shard: Shard, rule: CascadeRule) -> Shard:
    return shard._replace(rule=rule)
