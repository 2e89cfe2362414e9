"""From logits to probabilities that mean what they say: of all units scored 0.7, seven in ten are relevant.

A model's sigmoid is mostly too sure of itself. Its calibration is fitted on judged candidates (`nightrank calibrate`),
stored beside the model as calibration.json, and used for every score that a night publishes. Logits, orders and reuse
do not depend on it. Platt's method (scale and shift of the logit) and temperature (scale alone) keep every difference;
isotonic regression knows no shape, needs more data, and makes ties.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from rerank_core.errors import CalibrationError
from rerank_core.ranking.order import sigmoid
from schemas.records import ScoredCandidate

FILE = "calibration.json"
Method = Literal["platt", "temperature", "isotonic"]
BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A rising function from logits to probabilities; as it stands, the plain sigmoid."""

    scale: float = 1.0
    shift: float = 0.0
    knots: tuple[
        tuple[float, float], ...
    ] = ()  # (logit, probability), both rising; in place of scale and shift

    def __call__(self, logit: float) -> float:
        """The probability of a logit, 0 to 1."""
        if not self.knots:
            return sigmoid(self.scale * logit + self.shift)
        after = bisect.bisect_left(self.knots, (logit, -1.0))
        if after in (0, len(self.knots)):
            return self.knots[min(after, len(self.knots) - 1)][1]
        (x0, y0), (x1, y1) = self.knots[after - 1], self.knots[after]
        return min(y1, y0 + (y1 - y0) * (logit - x0) / (x1 - x0))  # rounding may pass the knot by a bit


UNCALIBRATED = Calibration()


def score_of(one: ScoredCandidate, calibration: Calibration) -> float | None:
    """The published score: the sigmoid of the fused logit, which is a calibrated one, or the calibrated logit.

    None for a candidate that the cascade left out.
    """
    if one.fused is not None:
        return sigmoid(one.fused)
    return None if one.logit is None else calibration(one.logit)


def fit(logits: Sequence[float], relevant: Sequence[bool], *, method: Method) -> Calibration:
    """The calibration under which the judgements are likeliest. Needs scikit-learn (extra `train`).

    Raises:
        CalibrationError: all are relevant or none is, or better ones are scored lower.
    """
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    x, y = np.asarray(logits, np.float64), np.asarray(relevant, bool)
    if not 0 < y.sum() < len(y):
        raise CalibrationError(
            f"{int(y.sum())} of {len(y)} judged scores are relevant: fitting needs some that are and some that are not"
        )
    if method == "isotonic":
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y)
        return Calibration(
            knots=tuple(zip(curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist(), strict=True))
        )
    line = LogisticRegression(C=np.inf, fit_intercept=method == "platt").fit(x[:, None], y)
    scale, shift = float(line.coef_[0, 0]), float(np.ravel(line.intercept_)[0])
    if scale <= 0:
        raise CalibrationError(
            f"relevant candidates have the lower logits (scale {scale:.3g}): this model ranks the wrong way round"
        )
    return Calibration(scale, shift)


def expected_error(probabilities: Sequence[float], relevant: Sequence[bool], *, bins: int = BINS) -> float:
    """ECE: mean distance of what was said from what was so, over bins of equal width, by their sizes; 0 to 1."""
    return sum(
        abs(said - so) * count for said, so, count in reliability(probabilities, relevant, bins=bins)
    ) / max(1, len(probabilities))


def reliability(
    probabilities: Sequence[float], relevant: Sequence[bool], *, bins: int = BINS
) -> list[tuple[float, float, int]]:
    """(mean probability, share that is relevant, count) of each bin of equal width that holds any."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(relevant, np.float64)
    place = np.minimum((p * bins).astype(int), bins - 1)
    return [
        (float(p[place == n].mean()), float(y[place == n].mean()), int((place == n).sum()))
        for n in range(bins)
        if (place == n).any()
    ]


def read(folder: Path) -> Calibration:
    """The calibration of a model's folder; the plain sigmoid where it has none.

    Raises:
        CalibrationError: the file is not one.
    """
    path = folder / FILE
    if not path.is_file():
        return UNCALIBRATED
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        knots = tuple((float(logit), float(probability)) for logit, probability in told["knots"])
        found = Calibration(float(told["scale"]), float(told["shift"]), knots)
        rising = sorted(knots) == list(knots) and [y for _, y in knots] == sorted(y for _, y in knots)
        if not (rising and found.scale > 0 and math.isfinite(found.scale) and math.isfinite(found.shift)):
            raise ValueError("it does not rise")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(
            f"{path} is no calibration ({error}); run nightrank calibrate, or remove it"
        ) from None
    return found


def told(folder: Path) -> dict[str, Any] | None:
    """All that a model's calibration.json says; None where it has none."""
    path = folder / FILE
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def write(folder: Path, calibration: Calibration, *, told: dict[str, Any]) -> Path:
    """Store a calibration beside its model, with what is to be told of it."""
    path = folder / FILE
    path.write_text(
        json.dumps({**dataclasses.asdict(calibration), **told}, indent=2) + "\n", encoding="utf-8"
    )
    return path


def methods() -> tuple[str, ...]:
    """Names of the methods."""
    return get_args(Method)
