"""The rules of promotion: each check alone turns a good candidate down, and none turns an equal one down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.operation import Promotion
from rerank_core.config.toml import validate
from rerank_core.promotion.rules import (
    HEADROOM,
    Decision,
    JudgedSet,
    LastNight,
    Measures,
    OnSet,
    Rankings,
    Speed,
    decide,
    fewest_queries,
    least_margin,
    predicted_seconds,
)

LIMITS = Promotion()
ndcgs = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def on_set(ndcg: list[float], **fields: Any) -> OnSet:
    plain: dict[str, Any] = {
        "shortcut_gap": 0.0,
        "calibration_error": 0.05,
        "auc": 0.8,
        "spread": 2.0,
        "pairs": 400,
        "failed": 0,
    }
    return OnSet({f"q{n}": value for n, value in enumerate(ndcg)}, **(plain | fields))


def measures(candidate: OnSet, serving: OnSet, **fields: Any) -> Measures:
    plain: dict[str, Any] = {"speed": Speed(100.0, 100.0), "rankings": Rankings(50, 0.9, 0.8)}
    return Measures("c", "s", sets=(JudgedSet("set", candidate, serving),), **(plain | fields))


GOOD = measures(on_set([0.6, 0.7] * 20), on_set([0.5, 0.65] * 20))


def failing(decision: Decision) -> set[str]:
    return {check.name for check in decision.checks if not check.passed}


def test_a_better_one_is_promoted_with_every_check_in_words() -> None:
    decision = decide(GOOD, LIMITS)
    assert decision.promoted
    assert decision.reason == f"all {len(decision.checks)} checks passed"
    assert len(decision.checks) == 8
    assert all(check.sentence and check.passed for check in decision.checks)
    assert "+0.0750, at least -0.00" in decision.checks[2].sentence


@given(ndcgs, st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1e6))
def test_an_equal_one_is_promoted_whatever_the_serving_one_is(
    values: list[float], gap: float, error: float, speed: float
) -> None:
    equal = on_set(values, shortcut_gap=gap, calibration_error=error)
    limits = Promotion(margin=1.01 * least_margin(len(values)))
    assert decide(measures(equal, equal, speed=Speed(speed, speed)), limits).promoted


@given(st.floats(1e-4, 1.2))
def test_the_fewest_queries_are_those_whose_least_margin_is_reached(margin: float) -> None:
    fewest = fewest_queries(margin)
    assert fewest
    assert least_margin(fewest) <= margin * (1 + 1e-9)
    assert fewest == 1 or least_margin(fewest - 1) >= margin


@pytest.mark.parametrize("margin", [0.0, 0.002, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("queries", [1, 10, 30, 100])
def test_of_too_few_queries_the_reason_says_what_would_be_enough(queries: int, margin: float) -> None:
    equal = measures(on_set([0.5] * queries), on_set([0.5] * queries))
    decision = decide(equal, Promotion(margin=margin))
    fewest = fewest_queries(margin)
    assert decision.promoted == (fewest is not None and queries >= fewest)
    if decision.promoted:
        return
    more = f"judge {fewest:,} or more, or " if fewest else ""
    _, remedy = decision.reason.split(f"Even equal lists on {queries:,} queries do not show that: ")
    assert remedy.startswith(f"{more}set promotion.margin to ")
    assert decide(equal, Promotion(margin=float(remedy.rpartition(" ")[2]))).promoted


def test_of_queries_enough_a_worse_model_is_not_told_to_judge_more() -> None:
    worse = decide(measures(on_set([0.4] * 400), on_set([0.5] * 400)), LIMITS)
    assert not worse.promoted
    assert "Even equal lists" not in worse.reason


def test_a_set_without_judged_queries_shows_nothing() -> None:
    decision = decide(measures(on_set([]), on_set([])), Promotion(margin=1.0))
    assert failing(decision) == {"nDCG@10 on set"}
    assert decision.reason == "set has no judged queries, so it shows nothing; judge some"


def on_its_set(**fields: Any) -> Measures:
    (judged,) = GOOD.sets
    changed = dataclasses.replace(judged, candidate=dataclasses.replace(judged.candidate, **fields))
    return dataclasses.replace(GOOD, sets=(changed,))


WORSE: dict[str, tuple[Measures, str]] = {
    "worse": (measures(on_set([0.4, 0.6] * 20), on_set([0.5, 0.65] * 20)), "nDCG@10 on set"),
    "better, but not surely": (
        measures(on_set([0.9, 0.1, 0.6, 0.5] * 10), on_set([0.1, 0.9, 0.5, 0.5] * 10)),
        "nDCG@10 on set",
    ),
    "few queries": (measures(on_set([1.0] * 3), on_set([0.0] * 3)), "nDCG@10 on set"),
    "reads tags alone": (on_its_set(shortcut_gap=0.2), "shortcut gap on set"),
    "overconfident": (on_its_set(calibration_error=0.3), "calibration error on set"),
    "constant": (on_its_set(spread=1e-7), "scores on set"),
    "some nan": (on_its_set(failed=1), "scores on set"),
    "reversed": (on_its_set(auc=0.2), "label order on set"),
    "slow": (dataclasses.replace(GOOD, speed=Speed(60.0, 100.0)), "speed"),
    "other lists": (dataclasses.replace(GOOD, rankings=Rankings(50, 0.3, 0.1)), "last night's lists"),
    "lists turned around": (
        dataclasses.replace(GOOD, rankings=Rankings(50, None, -0.9)),
        "order of last night's lists",
    ),
    "broken": (Measures("c", "s", problem="model.onnx is damaged"), "runs"),
    "no judged set": (dataclasses.replace(GOOD, sets=()), "judged_sets"),
}


@pytest.mark.parametrize("name", WORSE)
def test_each_check_alone_turns_a_candidate_down(name: str) -> None:
    found, check = WORSE[name]
    decision = decide(found, LIMITS)
    assert not decision.promoted
    assert failing(decision) == {check}
    (against,) = (c for c in decision.checks if not c.passed)
    assert decision.reason == against.sentence


def test_every_set_counts() -> None:
    (good,) = GOOD.sets
    (bad,) = WORSE["worse"][0].sets
    both = dataclasses.replace(GOOD, sets=(good, dataclasses.replace(bad, name="other")))
    assert failing(decide(both, LIMITS)) == {"nDCG@10 on other"}


@given(ndcgs, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_lower_bar_never_rejects_more(values: list[float], margin: float, more: float) -> None:
    flipped = measures(on_set(values), on_set(values[::-1]))
    strict, mild = Promotion(margin=margin), Promotion(margin=margin + more)
    assert decide(flipped, strict).promoted <= decide(flipped, mild).promoted


def test_a_worse_one_is_rarely_promoted_and_one_that_is_better_mostly() -> None:
    """The error that is bounded: promoting a model that is worse by the margin, in 5 % of the trials."""
    random = np.random.default_rng(7)

    def trials(mean: float) -> float:
        promoted = 0
        for _ in range(60):
            serving = random.uniform(0.2, 0.8, size=100)
            candidate = np.clip(serving + random.normal(mean, 0.1, size=100), 0, 1)
            promoted += decide(
                measures(on_set(candidate.tolist()), on_set(serving.tolist())), LIMITS
            ).promoted
        return promoted / 60

    assert trials(-LIMITS.margin) <= 0.1
    assert trials(0.05) >= 0.9


NIGHT = LastNight("r", 1000.0, 800.0, 1.0, 8000, 20000, 4000.0)


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 1000 - 800 + 8000 / 10),  # the rate of the night, not of the measurement
        ({"workers": 4.0}, 1000.0),
        (
            {"fresh_pairs": 1000, "scoring_seconds": 100.0},
            1000 - 100 + 2000 / 10,
        ),  # a tenth of the pairs at least
        ({"fresh_pairs": 0, "scoring_seconds": 0.0}, 1000 + 2000 / 100),
    ],
)
def test_a_night_like_the_last_one_is_predicted(changes: dict[str, Any], seconds: float) -> None:
    night = dataclasses.replace(NIGHT, **changes)
    assert predicted_seconds(Speed(100.0, 100.0), night) == pytest.approx(HEADROOM * seconds)
    assert predicted_seconds(Speed(50.0, 100.0), night) > predicted_seconds(Speed(100.0, 100.0), night)


def test_with_a_deadline_a_slower_model_may_serve_if_the_night_still_fits() -> None:
    slow = dataclasses.replace(GOOD, speed=Speed(50.0, 100.0))
    assert failing(decide(slow, LIMITS)) == {"speed"}

    def until(seconds: float | None, measured: Measures = slow) -> Decision:
        night = dataclasses.replace(NIGHT, until_deadline=seconds)
        return decide(dataclasses.replace(measured, last_night=night), LIMITS)

    assert until(2200.0).promoted  # 1.2 x (200 + 1600)
    assert failing(until(2100.0)) == {"speed"}
    assert "leaves only 2,100 s" in until(2100.0).reason
    assert failing(until(None)) == {"speed"}
    # nights that the deadline cuts anyway do not keep an equally fast model out
    assert until(10.0, GOOD).promoted


@pytest.mark.parametrize("rankings", [None, Rankings(0, None, None, skipped="output.store_text = false")])
def test_what_cannot_be_checked_is_said(rankings: Rankings | None) -> None:
    decision = decide(dataclasses.replace(GOOD, rankings=rankings, speed=None), LIMITS)
    assert decision.promoted
    assert sum(check.sentence.startswith("not checked: ") for check in decision.checks) == 2


@pytest.mark.parametrize(
    "read", [lambda m: m, lambda m: dataclasses.replace(m, last_night=NIGHT)], ids=["plain", "night"]
)
def test_measures_travel_as_json(read: Callable[[Measures], Measures]) -> None:
    found = read(GOOD)
    assert validate(Measures, dataclasses.asdict(found), name="measures") == found
    assert math.isfinite(decide(found, LIMITS).checks[0].value or 0)
