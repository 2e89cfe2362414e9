"""The cascade on Beam: a sample of the queries is scored in full, a rule is fitted on it, and spares the rest.

The rule travels in the shards of the rest, which therefore wait for the sample, before their candidates are fetched: a
rule that came in later would leave fetched and tagged candidates lying in a runner's memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from pipelines.nightly.shards import Handled, RankedShard, Shard, Stage
from pipelines.nightly.workers import WorkersModel
from pipelines.storage import filesystem
from rerank_core import stages
from rerank_core.ranking import cascade
from rerank_core.ranking.calibration import Calibration
from rerank_core.ranking.cascade import Profile, Rule

FILE = "cascade.json"


class Split(NamedTuple):
    """The shards of a night, by what the cascade does with them."""

    sample: beam.PCollection
    rest: beam.PCollection


class SplitSample(beam.PTransform):
    """PCollection[Shard] -> those of the sample, which have the first numbers, and the others."""

    def __init__(self, sample_shards: int):
        self._first = sample_shards

    def expand(self, shards: beam.PCollection) -> Split:
        first = self._first
        return Split(
            shards | "Sample" >> beam.Filter(lambda shard: shard.number < first),
            # A stage of its own, or the rest would be one with the sample that it waits for.
            shards | "Rest" >> beam.Filter(lambda shard: shard.number >= first) | beam.Reshuffle(),
        )


class FitCascade(beam.PTransform):
    """Ranked shards of the sample -> the one rule of the night, which is written to staging too, for the driver."""

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
    """PCollection[Shard] -> the same with the rule in each."""

    def __init__(self, rule: beam.PCollection):
        self._rule = rule

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        return shards | beam.Map(_with_rule, pvalue.AsSingleton(self._rule))


class PruneCandidates(Stage):
    """Gives candidates the cheap model's score, and by the shard's rule marks those that the model need not see."""

    def __init__(self, cheap: WorkersModel | None):
        self._cheap = cheap

    def handle(self, shard: Shard) -> Handled:
        groups, failed = list(shard.groups), 0
        missing = (
            sum(c.first_stage is None for group in groups for c in group.candidates) if self._cheap else 0
        )
        if self._cheap and missing:  # a night without news needs no model
            groups, failed = stages.first_stage_scores(groups, self._cheap.get())
        if shard.rule:
            groups = [cascade.prune(group, shard.rule) for group in groups]
        pairs = sum(len(group.candidates) for group in groups)
        pruned = sum(c.pruned is not None for group in groups for c in group.candidates)
        tally = {
            "in": pairs, "out": pairs - pruned, "pruned": pruned, "cheap_scored": missing, "cheap_failed": failed
        }  # fmt: skip
        return Handled(shard._replace(groups=tuple(groups)), [], tally)


def read_fitted(staging: str) -> dict[str, Any]:
    """What was fitted on tonight's sample: the fields of `Fitted` and `Rule`; a margin of None leaves nothing out."""
    told: dict[str, Any] = json.loads(filesystem.read_bytes(filesystem.join(staging, FILE)))
    return told


def _profiles(shard: RankedShard, calibration: Calibration) -> Iterator[Profile]:
    return (cascade.profile(group, calibration) for group in shard.groups)


def _fit(profiles: Sequence[Profile], staging: str, max_loss: float) -> Rule:
    fitted = cascade.fit(profiles, max_loss=max_loss)
    rule = fitted.rule
    told = fitted._asdict() | rule._asdict() | {"max_loss": max_loss}
    told["margin"] = rule.margin if math.isfinite(rule.margin) else None
    del told["rule"]
    filesystem.write_bytes(filesystem.join(staging, FILE), json.dumps(told, sort_keys=True).encode())
    return rule


def _with_rule(shard: Shard, rule: Rule) -> Shard:
    return shard._replace(rule=rule)
