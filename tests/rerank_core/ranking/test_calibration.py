"""Calibration: probabilities that rise with the logit, fitted ones near the truth, and files that say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_core.errors import CalibrationError
from rerank_core.ranking import calibration
from rerank_core.ranking.calibration import (
    FILE,
    UNCALIBRATED,
    Calibration,
    Method,
    expected_error,
    fit_calibration,
    reliability,
)
from rerank_core.ranking.order import sigmoid

LOGITS = st.floats(-30, 30)
STEPS = Calibration(knots=((-2.0, 0.1), (0.0, 0.3), (1.0, 0.3), (4.0, 0.9)))


def judged(size: int, *, scale: float, shift: float, seed: int) -> tuple[list[float], list[bool]]:
    """Logits of an overconfident model, and what is relevant."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(-2, 4, size)
    relevant = draw.random(size) < 1 / (1 + np.exp(-(scale * logits + shift)))
    return logits.tolist(), relevant.tolist()


@given(LOGITS)
def test_the_default_is_the_sigmoid(logit: float) -> None:
    assert UNCALIBRATED(logit) == sigmoid(logit)
    assert Calibration(0.5, -1.0)(logit) == sigmoid(0.5 * logit - 1)


@given(LOGITS, LOGITS)
@example(4.0, 5.0)  # the last knot, and beyond it
def test_probabilities_rise(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for calibrated in (UNCALIBRATED, Calibration(0.3, 2.0), STEPS):
        assert 0 <= calibrated(low) <= calibrated(high) <= 1


@given(LOGITS)
def test_between_knots_a_line_is_drawn(logit: float) -> None:
    xs, ys = zip(*STEPS.knots, strict=True)
    assert STEPS(logit) == pytest.approx(np.interp(logit, xs, ys))


@pytest.mark.parametrize("method", get_args(Method))
def test_a_fit_comes_near_the_truth_on_what_it_did_not_see(method: Method) -> None:
    fitted = fit_calibration(*judged(4000, scale=0.4, shift=0.0, seed=1), method=method)
    logits, relevant = judged(4000, scale=0.4, shift=0.0, seed=2)
    before = expected_error([sigmoid(x) for x in logits], relevant)
    after = expected_error([fitted(x) for x in logits], relevant)
    assert before > 0.1
    assert after < 0.035
    assert fitted(0.0) == pytest.approx(0.5, abs=0.08)


def test_platt_finds_scale_and_shift() -> None:
    fitted = fit_calibration(*judged(20_000, scale=0.4, shift=-1.5, seed=3), method="platt")
    assert (fitted.scale, fitted.shift) == pytest.approx((0.4, -1.5), abs=0.08)
    assert fit_calibration(*judged(200, scale=0.4, shift=-1.5, seed=3), method="temperature").shift == 0


@pytest.mark.parametrize("relevant", [[True, True], [False, False], []])
def test_nothing_can_be_fitted_on_one_kind(relevant: list[bool]) -> None:
    with pytest.raises(CalibrationError, match=f"of {len(relevant)} judged scores are relevant"):
        fit_calibration([1.0] * len(relevant), relevant, method="platt")


def test_a_model_that_ranks_in_reverse_order_is_refused() -> None:
    logits, relevant = judged(300, scale=2.0, shift=0.0, seed=4)
    with pytest.raises(CalibrationError, match="ranks in reverse order"):
        fit_calibration([-x for x in logits], relevant, method="platt")


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 20))
def test_the_expected_error_by_its_definition(pairs: list[tuple[float, bool]], bins: int) -> None:
    said, so = [p for p, _ in pairs], [y for _, y in pairs]
    total = 0.0
    for n in range(bins):
        own = [(p, y) for p, y in pairs if min(int(p * bins), bins - 1) == n]
        if own:
            total += abs(sum(p for p, _ in own) - sum(y for _, y in own))
    assert expected_error(said, so, bins=bins) == pytest.approx(total / len(pairs))
    assert sum(count for *_, count in reliability(said, so, bins=bins)) == len(pairs)


@pytest.mark.parametrize("stored", [UNCALIBRATED, Calibration(0.4, -1.5), STEPS])
def test_what_is_stored_is_read_back(tmp_path: Path, stored: Calibration) -> None:
    path = calibration.write(tmp_path, stored, figures={"method": "platt", "ece": 0.01})
    assert path == tmp_path / FILE
    assert calibration.read(tmp_path) == stored
    assert (calibration.describe(tmp_path) or {})["ece"] == 0.01


def test_a_folder_without_one_has_plain_scores(tmp_path: Path) -> None:
    assert calibration.read(tmp_path) == UNCALIBRATED
    assert calibration.describe(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"scale": -1.0, "shift": 0.0, "knots": []}),
        json.dumps({"scale": float("nan"), "shift": 0.0, "knots": []}),
        json.dumps({"scale": 1.0, "shift": 0.0, "knots": [[1.0, 0.5], [0.0, 0.6]]}),
        json.dumps({"scale": 1.0, "shift": 0.0, "knots": [[0.0, 0.6], [1.0, 0.5]]}),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(
        CalibrationError, match="calibration.json is not a valid calibration .*nightrank calibrate"
    ):
        calibration.read(tmp_path)
