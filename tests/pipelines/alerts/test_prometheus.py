"""The file that Prometheus reads, by Prometheus' own parser."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.alerts.night import STATES
from pipelines.alerts.prometheus import metrics
from tests.pipelines.alerts.conftest import Ends


def parsed(page: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and label values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(page.decode()):
        assert (family.type, bool(family.documentation)) == ("gauge", True)
        for sample in family.samples:
            # The parser sorts the labels; of two, "stage" and "step" come first here.
            labels = sorted(sample.labels.items(), key=lambda label: label[0] in ("reason", "state"))
            values = tuple(value for _, value in labels)
            found.setdefault(sample.name.removeprefix("nightrank_"), {})[values] = sample.value
    return found


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_its_series(ends: Ends, state: str) -> None:
    night = ends(state)
    values = parsed(metrics(night))
    assert values["night_state"] == {(name,): float(name == state) for name in STATES}
    assert values["night_end_timestamp_seconds"] == {(): night.ended.timestamp()}
    assert ("last_success_timestamp_seconds" in values) == (state in ("published", "warn"))
    assert values["step_state"]["rerank", "failed"] == float(state == "failed")
    assert values["output_free_bytes"][()] > 0
    assert values["serving_run_timestamp_seconds"][()] > 0
    assert ("queries" in values) == (state != "failed")


def test_the_counts_are_the_manifests(ends: Ends) -> None:
    night = ends("warn")
    assert night.run is not None
    values = parsed(metrics(night))
    for unit in ("events", "queries", "pairs"):
        counts = dict(getattr(night.run.balance, unit))
        assert counts.pop("read") == sum(values[unit].values())
        assert values[unit] == {(outcome,): count for outcome, count in counts.items()}
    letters = {f"{stage}/{reason}": count for (stage, reason), count in values["dead_letters"].items()}
    assert letters == night.run.rejected
    assert values["drift_verdict"] == {("ok",): 0, ("warn",): 1, ("hold",): 0}
    assert values["drift_measure"] == {("queries",): 5}
    assert values["stage_seconds"].keys() == {
        (stage,) for stage, t in night.run.stages.items() if "seconds" in t
    }
    assert values["step_seconds"] == {("rerank",): 12.5}


def test_the_time_of_the_last_success_outlives_bad_nights(ends: Ends) -> None:
    good = ends("published")
    page = metrics(good)
    for state in ("held", "failed", "failed"):
        page = metrics(ends(state), before=page.decode())
        assert parsed(page)["last_success_timestamp_seconds"] == {(): good.ended.timestamp()}
    assert "last_success_timestamp_seconds" not in parsed(metrics(ends("failed"), before="not { a metric"))


@pytest.mark.parametrize("state", STATES)
def test_names_and_labels_follow_the_conventions(ends: Ends, state: str) -> None:
    night = ends(state)
    page = metrics(night).decode()
    assert page.endswith("\n")
    for line in page.splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r'nightrank_[a-z_]+(\{([a-z_]+="[^"]*",?)*\})? [-+.e0-9]+', line), line
    if night.run:
        assert night.run.run_id not in page  # each night would be a new series
