"""What a night would do, without doing it: its queries are counted, a sample of them is fetched, tagged and looked up.

The log is read whole, by the transform that a night reads it with. A sample of its queries, drawn by hash, goes
through the stages up to scoring. The seconds of the stages are those of the last night for each event, query or pair;
where there is none, or it scored too little, they are measured on the sample. Nothing is written to the output folder,
and it is not locked. The graph is built for the runner, which is not asked. In the time the runner plays no part but in
how many workers the last night had.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from pipelines.beam_options import beam_options
from pipelines.drift.earlier import not_reached
from pipelines.nightly.job import Job, describe_job
from pipelines.nightly.models import Loader
from pipelines.nightly.prepare import Night, prepare
from pipelines.nightly.sample import SCORED_PAIRS, Log, Sample, read_log, run_sample, score_some
from pipelines.nightly.workers import worker_resources
from pipelines.storage.runs import latest
from rerank_core.config.night import Config
from schemas.errors import ManifestError
from schemas.manifest import Manifest

Amounts = dict[str, float]
"""Events, queries, pairs, fresh (pairs to score) and passages (texts to read) of a night."""

BASIS = {
    "ReadQueryLog": "events",
    "FetchCandidates": "queries",
    "TagFeatures": "passages",
    "ScoreCandidates": "fresh",
    "FindEvidence": "fresh",
}
"""What the seconds of a stage grow with; those of the others with the pairs."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a night would do."""

    run_date: str
    run_id: str
    previous_run_id: str | None  # the run whose scores would be reused
    events: int  # of the log, read
    queries: int
    sampled: int  # queries of the sample
    without_candidates: int  # queries, estimated
    pairs: int  # estimated from the sample
    pairs_error: int  # half the width of the 95 % interval of `pairs`
    reused: int  # pairs, estimated
    fresh: int  # pairs that would be scored, estimated
    stages: dict[str, float]  # seconds, summed over workers
    seconds: float  # of the whole night
    speed_of: str  # the run whose speed this is; "" is measured now, on the sample, in one process
    finish_by: str | None  # UTC; None without a deadline
    finished_at: str  # UTC, if it began now
    in_time: bool | None  # None without a deadline
    cost: float | None  # seconds by plan.cost_per_hour; None without it
    notes: list[str]  # what the estimate does not know
    job: Job  # what the runner would be given


def estimate(
    config: Config,
    *,
    run_date: datetime.date,
    beam_flags: Sequence[str] = (),
    load: Loader | None = None,
    finish_by: datetime.datetime | None = None,
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
) -> Estimate:
    """Check all that a night needs, and estimate its pairs, its time and its cost.

    Args:
        config: the night's configuration.
        run_date: last day of the log's window.
        beam_flags: flags for Beam, checked as a night checks them.
        load: makes the scorer, in place of the configured model.
        finish_by: the deadline, with its time zone.

    Raises:
        ConfigError, SourceError, ModelError, JudgementError: the night could not start.
    """
    began = time.monotonic()
    options = beam_options(beam_flags)
    night = prepare(config, run_date=run_date, options=options, load=load, finish_by=finish_by)
    opening = time.monotonic() - began
    log = read_log(night)
    resources = worker_resources(night, writes=False)
    sample = run_sample(night, resources, log.sample)
    last = _last_night(night)
    amounts, error = _amounts(night, log, sample, last)
    scored_enough = last is not None and _amounts_of(last)["fresh"] >= SCORED_PAIRS
    if sample.open and not scored_enough:
        sample = score_some(night, resources, sample)
    by_stage, seconds = _seconds(amounts, sample, last, opening, scored_enough=scored_enough)
    started = now()
    finished = started + datetime.timedelta(seconds=seconds)
    hourly = config.plan.cost_per_hour
    return Estimate(
        run_date=night.run.run_date,
        run_id=night.run.run_id,
        previous_run_id=night.previous.run_id,
        events=log.events,
        queries=log.queries,
        sampled=len(sample.counts),
        without_candidates=_scaled(sum(count == 0 for count in sample.counts), log, sample),
        pairs=round(amounts["pairs"]),
        pairs_error=error,
        reused=_scaled(sample.reused, log, sample),
        fresh=round(amounts["fresh"]),
        stages=by_stage,
        seconds=seconds,
        speed_of=last.run_id if last else "",
        finish_by=_utc(finish_by) if finish_by else None,
        finished_at=_utc(finished),
        in_time=finished <= finish_by if finish_by else None,
        cost=hourly * seconds / 3600 if hourly else None,
        notes=_notes(night, last, scored_enough=scored_enough or not sample.open),
        job=describe_job(night, options),
    )


def _utc(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds")


def _scaled(count: float, log: Log, sample: Sample) -> int:
    """A count of the sample for all queries of the log."""
    return round(count * log.queries / len(sample.counts)) if sample.counts else 0


def _amounts(night: Night, log: Log, sample: Sample, last: Manifest | None) -> tuple[Amounts, int]:
    """Tonight's amounts, and half the width of the 95 % interval of the pairs."""
    n, pairs = len(sample.counts), _scaled(sum(sample.counts), log, sample)
    spread = statistics.stdev(sample.counts) / math.sqrt(n) if n > 1 else 0.0
    error = 1.96 * spread * log.queries * math.sqrt(max(0.0, 1 - n / max(1, log.queries)))
    fresh = float(_scaled(sample.open, log, sample))
    if night.sample_queries and last:
        pruning = last.stages.get("PruneCandidates", {})
        fresh *= 1 - pruning.get("pruned", 0) / max(1, pruning.get("in", 0))
    amounts = {
        "events": float(log.events),
        "queries": float(log.queries),
        "pairs": float(pairs),
        "fresh": fresh,
        "passages": float(_scaled(sample.passages, log, sample)),
    }
    return amounts, round(error)


# --- the time


def _last_night(night: Night) -> Manifest | None:
    """The newest run, if the same model scored it, so that its speed is tonight's."""
    try:
        last = latest(night.config.output.path)
    except ManifestError:
        return None
    return last if last and last.model_fingerprint == night.models.scorer.fingerprint else None


def _amounts_of(last: Manifest) -> Amounts:
    """What a night's stages took their time for: without what its deadline left out."""
    tallies, queries = last.stages, last.balance.queries
    return {
        "events": float(last.balance.events.get("read", 0)),
        "queries": float(queries.get("read", 0) - queries.get("stale", 0) - not_reached(last)),
        "pairs": float(tallies.get("FetchCandidates", {}).get("out", 0)),
        "fresh": float(tallies.get("ScoreCandidates", {}).get("out", 0)),
        "passages": float(tallies.get("TagFeatures", {}).get("passages_read", 0)),
    }


def _seconds(
    amounts: Amounts, sample: Sample, last: Manifest | None, opening: float, *, scored_enough: bool
) -> tuple[dict[str, float], float]:
    """Seconds by stage, summed over workers, and of the whole night.

    Args:
        opening: seconds that it took just now to open the models and to check the inputs.
    """
    share = len(sample.counts) / max(1.0, amounts["queries"])
    now = {stage: seconds / share for stage, seconds in sample.seconds.items()} if share else {}
    if last is None:
        return now, opening + sum(now.values())
    then = _amounts_of(last)
    spent = {stage: tally["seconds"] for stage, tally in last.stages.items() if "seconds" in tally}
    scaled = {
        stage: _of_stage(stage, seconds, then, amounts, now.get(stage, 0.0))
        for stage, seconds in spent.items()
    }
    if not scored_enough and "ScoreCandidates" in now:
        scaled["ScoreCandidates"] = now["ScoreCandidates"]
    total = sum(spent.values())
    # What a night takes beside its stages does not grow; where workers share them, it takes less than their sum.
    beside, workers = max(opening, last.seconds - total), max(1.0, total / max(1e-9, last.seconds))
    return scaled, beside + sum(scaled.values()) / workers


def _of_stage(stage: str, seconds: float, then: Mapping[str, float], now: Amounts, measured: float) -> float:
    """The seconds of a stage, by what it took for each unit; where it had none, what was measured on the sample."""
    basis = BASIS.get(stage, "pairs")
    return seconds * now[basis] / then[basis] if then[basis] else measured


def _notes(night: Night, last: Manifest | None, *, scored_enough: bool) -> list[str]:
    notes = []
    if last is None:
        notes.append(
            "no last night with this model: seconds are measured on the sample, in one process, without ranking, "
            "evidence, mining and writing"
        )
    elif not scored_enough:
        notes.append(f"run {last.run_id} scored few pairs: the seconds of scoring are measured on the sample")
    if night.sample_queries and not (last and last.cascade):
        notes.append("how much the cascade prunes is not known yet: all candidates count as scored")
    if night.previous.problem:
        notes.append(night.previous.problem)
    return notes
