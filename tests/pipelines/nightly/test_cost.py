"""Plans of larger nights follow from tonight's estimate."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.estimate import print_estimate
from pipelines.nightly import cost
from pipelines.nightly.cost import HOURS, SIZES, plan, plans
from pipelines.nightly.estimate import Estimate
from pipelines.nightly.job import Job
from rerank_core.config.night import Config, Tagging, parse_config


def estimate_of(pairs: int = 20_000, *, seconds: float = 200.0) -> Estimate:
    """Tonight's estimate: a hundred pairs for each query that has some."""
    values: dict[str, object] = dict.fromkeys((field.name for field in dataclasses.fields(Estimate)), 0)
    values |= {"queries": pairs // 100 + 3, "without_candidates": 3, "pairs": pairs, "fresh": pairs}
    values |= {"stages": {"ScoreCandidates": seconds * 0.9, "TagFeatures": seconds * 0.1}, "notes": []}
    values |= {"finished_at": "", "run_date": "2026-03-08", "run_id": "r", "speed_of": ""}
    values |= {"job": Job("FnApiRunner", True, {}, "", [], 0)}
    return Estimate(**values | {"finish_by": None, "in_time": None, "cost": None})  # type: ignore[arg-type]


def config_of(**plan: float) -> Config:
    return parse_config({"output": {"queries_per_shard": 200}, "plan": plan})


@given(st.integers(1, 10**6), st.integers(10**6, 10**10), st.floats(0, 1e5))
def test_a_larger_night_takes_more_of_everything_and_is_over_in_time(
    small: int, large: int, seconds: float
) -> None:
    found, config = estimate_of(seconds=seconds), config_of(cost_per_hour=2.0)
    one, other = plan(small, found, config), plan(large, found, config)
    for name in ("workers", "shuffled", "written", "read", "requests", "machines", "store"):
        assert getattr(one, name) <= getattr(other, name), name
    for planned in (one, other):
        assert planned.hours <= HOURS + 1e-6
        assert planned.machines == pytest.approx(2.0 * planned.workers * planned.hours)


def test_workers_are_as_many_as_the_seconds_need() -> None:
    found = estimate_of(20_000, seconds=200.0)  # 10 ms a pair
    planned = plan(10**8, found, config_of())
    seconds = 10**8 * (0.01 + cost.MEASURED.seconds.each)
    assert planned.workers == pytest.approx(seconds / 3600 / HOURS, rel=0.05)
    assert planned.machines is None


def test_look_ups_of_facts_are_bounded_by_the_table_and_by_the_facts() -> None:
    """5,000 shards of 20,000 pairs look into all of 5,000 files; a hundred times as many, into one file a fact."""
    found, untagged = estimate_of(20_000), dataclasses.replace(config_of(), tags=Tagging(enabled=False))
    for pairs, files in ((10**8, 5_000), (10**10, 20_000)):
        shards = pairs // 20_000
        more = plan(pairs, found, config_of()).requests - plan(pairs, found, untagged).requests
        assert more == pytest.approx(shards * files * cost.REQUESTS_PER_FILE, rel=0.01)
        read = plan(pairs, found, config_of()).read - plan(pairs, found, untagged).read
        assert read <= pairs * cost.BYTES_PER_LOOK_UP


def test_tonights_night_comes_first_and_a_night_without_pairs_has_no_plan() -> None:
    assert [one.pairs for one in plans(estimate_of(), config_of())] == [20_000, *SIZES]
    assert plans(estimate_of(0), config_of()) == []


@pytest.mark.parametrize("hourly", [0.0, 1.5])
def test_plans_are_printed(capsys: pytest.CaptureFixture[str], hourly: float) -> None:
    found = estimate_of()
    print_estimate(found, plans(found, config_of(cost_per_hour=hourly)))
    printed = capsys.readouterr().out
    assert "10,000,000,000" in printed
    assert ("cost of machines" in printed) == bool(hourly)
