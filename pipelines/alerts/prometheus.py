"""A night's outcome in Prometheus' text format, for node_exporter's textfile collector.

Names and units follow Prometheus' conventions: seconds and bytes, and labels of few values. No run id is a label: each
night would be a new series.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.alerts.night import STATES, Night
from pipelines.storage.filesystem import is_local
from schemas.manifest import Manifest

LAST_SUCCESS = "last_success_timestamp_seconds"
VERDICTS = ("ok", "warn", "hold")
STEP_STATES = ("done", "not_due", "held", "failed")

Series = Iterable[tuple[tuple[str, ...], float]]


class _Page:
    """The gauges of one file."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def one(self, name: str, meaning: str, value: float) -> None:
        """A gauge without labels."""
        Gauge(f"nightrank_{name}", meaning, registry=self.registry).set(value)

    def several(self, name: str, meaning: str, labels: tuple[str, ...], series: Series) -> None:
        """A gauge with labels; none if there are no values."""
        gauge = None
        for of, value in series:
            gauge = gauge or Gauge(f"nightrank_{name}", meaning, labels, registry=self.registry)
            gauge.labels(*of).set(value)

    def states(self, name: str, meaning: str, label: str, states: Iterable[str], current: str) -> None:
        """A gauge that is 1 for the current state and 0 for the others."""
        self.several(name, meaning, (label,), (((state,), float(state == current)) for state in states))


def metrics(night: Night, *, before: str = "") -> bytes:
    """The file's bytes.

    Args:
        night: how it ended.
        before: the file's text so far, which has the time of the last success.
    """
    page = _Page()
    _outcome(page, night, before)
    _steps(page, night)
    if night.run:
        _counts(page, night.run)
        _quality(page, night.run)
    return bytes(generate_latest(page.registry))


def _outcome(page: _Page, night: Night, before: str) -> None:
    page.states("night_state", "How the newest night ended.", "state", STATES, night.state)
    page.one("night_end_timestamp_seconds", "When the newest night ended.", night.ended.timestamp())
    good = night.state in ("published", "warn")
    success = night.ended.timestamp() if good else _last_success(before)
    if success is not None:
        page.one(LAST_SUCCESS, "When a night ended last that was published and had no failed step.", success)
    with contextlib.suppress(ValueError):
        if night.serving:
            served = datetime.datetime.fromisoformat(night.serving.created_at).timestamp()
            page.one("serving_run_timestamp_seconds", "When the run that readers see was published.", served)
    if night.output and is_local(night.output):
        with contextlib.suppress(OSError):
            page.one(
                "output_free_bytes",
                "Free space of the file system of the output folder.",
                shutil.disk_usage(night.output).free,
            )


def _last_success(text: str) -> float | None:
    """The time of the last success in an earlier file; None if it has none, or is damaged."""
    with contextlib.suppress(ValueError):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"nightrank_{LAST_SUCCESS}":
                    return float(sample.value)
    return None


def _steps(page: _Page, night: Night) -> None:
    steps = night.record.steps
    page.several(
        "step_state",
        "How each step ended.",
        ("step", "state"),
        (((step.name, state), float(step.state == state)) for step in steps for state in STEP_STATES),
    )
    page.several(
        "step_seconds",
        "Time of each step.",
        ("step",),
        (((step.name,), step.seconds) for step in steps if step.state != "not_due"),
    )


def _counts(page: _Page, run: Manifest) -> None:
    for unit in ("events", "queries", "pairs"):
        counts: Mapping[str, int] = getattr(run.balance, unit)
        outcomes = (((outcome,), float(count)) for outcome, count in counts.items() if outcome != "read")
        page.several(unit, f"What became of the {unit} of the night's run.", ("outcome",), outcomes)
    page.one("stale_queries", "Queries that kept an earlier night's list.", sum((run.stale or {}).values()))
    page.several(
        "dead_letters",
        "Records that a stage could not handle.",
        ("stage", "reason"),
        (((*_split(letter),), float(count)) for letter, count in run.rejected.items()),
    )
    page.one("run_seconds", "Wall-clock time of the night's run.", run.seconds)
    page.several(
        "stage_seconds",
        "Time of each stage, summed over workers.",
        ("stage",),
        (((stage,), tally["seconds"]) for stage, tally in run.stages.items() if "seconds" in tally),
    )
    page.several(
        "table_bytes",
        "Size of each table of the night's run.",
        ("table",),
        (((name,), float(table.bytes)) for name, table in run.tables.items()),
    )


def _split(letter: str) -> tuple[str, str]:
    stage, _, reason = letter.partition("/")
    return stage, reason


def _quality(page: _Page, run: Manifest) -> None:
    page.several(
        "ndcg_gain",
        "nDCG@10 after reranking minus BM25's, on the judged queries.",
        ("level",),
        (((level,), gain) for level, gain in run.gains.items()),
    )
    if not run.drift:
        return
    page.states("drift_verdict", "Verdict on drift.", "verdict", VERDICTS, str(run.drift["verdict"]))
    page.several(
        "drift_measure",
        "Tonight's measures against earlier nights.",
        ("measure",),
        (
            ((name,), float(measure["tonight"]))
            for name, measure in run.drift["measures"].items()
            if ":" not in name  # dead letters have a gauge of their own
        ),
    )
