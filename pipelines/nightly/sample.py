"""The log of a night counted, and a sample of its queries taken through the stages up to scoring: for an estimate."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam

from pipelines.beam_options import beam_options
from pipelines.nightly import stages
from pipelines.nightly.deadline import Deadline
from pipelines.nightly.prepare import Night
from pipelines.nightly.previous import read_scores, score_columns
from pipelines.nightly.shard_stage import Handled
from pipelines.nightly.shards import Earlier, Shard
from pipelines.nightly.worker_errors import worker_errors
from pipelines.nightly.workers import WorkerResources
from pipelines.querylog.read_log import ReadQueryLog
from rerank_core.stages import is_open
from schemas.records import Query, QueryGroup

SAMPLE_QUERIES = 100
SCORED_PAIRS = 256
"""Pairs of the sample that are scored, and pairs that a last night must have scored for its speed to count."""


class Log(NamedTuple):
    """The queries of the window, counted, and a sample of them."""

    events: int
    queries: int
    sample: list[Query]


class Sample(NamedTuple):
    """What became of the sample."""

    counts: list[int]  # candidates by query, 0 for none
    open: int  # pairs that must be scored
    reused: int
    passages: float  # texts that were read
    shard: Shard
    seconds: dict[str, float]  # by stage


def read_log(night: Night) -> Log:
    """Count the queries of the log, and draw the sample: the lowest ids, which are hashes of the texts."""
    with tempfile.TemporaryDirectory(prefix="nightrank-estimate-") as folder:
        drawn, tallies = str(Path(folder, "drawn")), str(Path(folder, "tallies"))
        pipeline = beam.Pipeline(options=beam_options(()))
        log = pipeline | ReadQueryLog(night.source, night.run.window, night.config)
        of = beam.combiners.Top.Of(SAMPLE_QUERIES, reverse=True)
        plain = log.queries | "Plain" >> beam.Map(lambda query: (query.query_id, query.text, query.count))
        _ = plain | "Draw" >> of | "Drawn" >> beam.Map(_store, drawn)
        summed = log.tallies | "Sum" >> beam.CombinePerKey(sum) | beam.combiners.ToList()
        _ = summed | "Summed" >> beam.Map(_store, tallies)
        with worker_errors():
            pipeline.run().wait_until_finish()
        counted = {what: int(amount) for (_, what), amount in _stored(tallies)}
        sample = [Query(query_id, text, count, 0, ()) for query_id, text, count in _stored(drawn)]
        return Log(counted.get("events_read", 0), counted.get("out", 0), sample)


def _store(value: Any, path: str) -> None:
    Path(path).write_text(json.dumps(value))


def _stored(path: str) -> Any:
    return json.loads(Path(path).read_text())


def run_sample(night: Night, resources: WorkerResources, queries: Sequence[Query]) -> Sample:
    """Take the sample through the stages up to scoring, as one shard."""
    groups = tuple(QueryGroup(query, ()) for query in sorted(queries, key=lambda query: query.query_id))
    shard = Shard(0, 1, groups, tuple(_earlier(night, groups)))
    no_deadline, reader = Deadline(None, rows_per_shard=1), resources.reader
    model, tagged, seconds = night.models.scorer.fingerprint, night.models.reads_tags, dict[str, float]()
    passages = 0.0
    for stage in (
        stages.FetchCandidates(night.source, night.config, reader, no_deadline),
        stages.TagFeatures(night.config, reader, no_deadline),
        stages.ReuseScores(model, tagged=tagged),
    ):
        handled, seconds[stage.name] = _timed(stage.handle, shard)
        shard, passages = handled.shard, passages + handled.tally.get("passages_read", 0)
    found = {group.query.query_id: len(group.candidates) for group in shard.groups}
    candidates = [candidate for group in shard.groups for candidate in group.candidates]
    return Sample(
        [found.get(group.query.query_id, 0) for group in groups],
        sum(map(is_open, candidates)),
        sum(candidate.reused for candidate in candidates),
        passages,
        shard,
        seconds,
    )


def _timed(handle: Callable[[Shard], Handled], shard: Shard) -> tuple[Handled, float]:
    started = time.monotonic()
    return handle(shard), time.monotonic() - started


def _earlier(night: Night, groups: Sequence[QueryGroup]) -> list[Earlier]:
    """What the previous run has of these queries."""
    wanted = {group.query.query_id for group in groups}
    scores: dict[str, bytes] = {}
    for path in night.previous.files:
        for query_id, packed in read_scores(path, score_columns(night.previous)):
            if query_id in wanted:
                scores[query_id] = scores.get(query_id, b"") + packed
    return [Earlier(scores.get(group.query.query_id, b"")) for group in groups]


def score_some(night: Night, resources: WorkerResources, sample: Sample) -> Sample:
    """Score some of the sample, and count their seconds for all of its open pairs."""
    chosen, pairs = 0, 0
    while pairs < min(SCORED_PAIRS, sample.open):
        pairs += sum(map(is_open, sample.shard.groups[chosen].candidates))
        chosen += 1
    part = sample.shard._replace(groups=sample.shard.groups[:chosen], previous=sample.shard.previous[:chosen])
    resources.scorer.get()  # loading it is not scoring
    stage = stages.ScoreCandidates(
        resources.scorer,
        Deadline(None, rows_per_shard=1),
        tagged=night.models.reads_tags,
        progress=None,
    )
    _, seconds = _timed(stage.handle, part)
    return sample._replace(seconds=sample.seconds | {stage.name: seconds * sample.open / pairs})
