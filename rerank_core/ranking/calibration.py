"""From logits to probabilities that mean what they say: of all units scored 0.7, seven in ten are relevant.

A model's sigmoid is mostly overconfident. Its calibration is fitted on judged candidates (`nightrank calibrate`),
stored beside the model as calibration.json, and used for every score that a night publishes. Logits, orders and reuse
do not depend on it. Platt scaling (scale and shift of the logit) and temperature scaling (scale alone) are strictly
increasing; isotonic regression assumes no shape, needs more data, and creates ties.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rerank_core.errors import CalibrationError
from rerank_core.files import read_text
from rerank_core.ranking.order import sigmoid
from schemas.parsing import parse_json
from schemas.records import ScoredCandidate

FILE = "calibration.json"
Method = Literal["platt", "temperature", "isotonic"]
BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """An increasing function from logits to probabilities; by default the sigmoid."""

    scale: float = 1.0
    shift: float = 0.0
    # (logit, probability), both increasing; in place of scale and shift
    knots: tuple[tuple[float, float], ...] = ()

    def __call__(self, logit: float) -> float:
        """The probability of a logit, 0 to 1."""
        if not self.knots:
            return sigmoid(self.scale * logit + self.shift)
        after = bisect.bisect_left(self.knots, (logit, -1.0))
        if after in (0, len(self.knots)):
            return self.knots[min(after, len(self.knots) - 1)][1]
        (x0, y0), (x1, y1) = self.knots[after - 1], self.knots[after]
        return min(y1, y0 + (y1 - y0) * (logit - x0) / (x1 - x0))  # rounding can exceed the knot


UNCALIBRATED = Calibration()


def score_of(candidate: ScoredCandidate, calibration: Calibration) -> float | None:
    """The published score, 0 to 1: the sigmoid of the fused logit (calibrated by its fit), or the calibrated logit.

    None for a candidate that the cascade pruned.
    """
    if candidate.fused is not None:
        return sigmoid(candidate.fused)
    return None if candidate.logit is None else calibration(candidate.logit)


def fit_calibration(logits: Sequence[float], relevant: Sequence[bool], *, method: Method) -> Calibration:
    """The maximum-likelihood calibration. Needs scikit-learn (extra `train`).

    Args:
        logits: of judged candidates.
        relevant: whether each is; one a logit.
        method: see the module.

    Raises:
        CalibrationError: all are relevant or none is, or relevant candidates have the lower logits.
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
            f"relevant candidates have the lower logits (scale {scale:.3g}): this model ranks in reverse order"
        )
    return Calibration(scale, shift)


def expected_error(probabilities: Sequence[float], relevant: Sequence[bool], *, bins: int = BINS) -> float:
    """ECE (Guo et al. 2017, arXiv:1706.04599): the mean gap between probability and share relevant, 0 to 1.

    Over bins of equal width, weighted by their sizes.
    """
    gaps = (
        abs(mean - share) * count for mean, share, count in reliability(probabilities, relevant, bins=bins)
    )
    return sum(gaps) / max(1, len(probabilities))


def reliability(
    probabilities: Sequence[float], relevant: Sequence[bool], *, bins: int = BINS
) -> list[tuple[float, float, int]]:
    """(mean probability, share that is relevant, count) of each bin of equal width that is not empty."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(relevant, np.float64)
    number = np.minimum((p * bins).astype(int), bins - 1)
    return [
        (float(p[number == n].mean()), float(y[number == n].mean()), int((number == n).sum()))
        for n in range(bins)
        if (number == n).any()
    ]


def read(folder: Path) -> Calibration:
    """The calibration in a model's folder; the sigmoid if there is none.

    Raises:
        CalibrationError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return UNCALIBRATED
    try:
        stored = parse_json(read_text(path))
        knots = tuple((float(logit), float(probability)) for logit, probability in stored["knots"])
        calibration = Calibration(float(stored["scale"]), float(stored["shift"]), knots)
        increasing = sorted(knots) == list(knots) and [y for _, y in knots] == sorted(y for _, y in knots)
        finite = math.isfinite(calibration.scale) and math.isfinite(calibration.shift)
        if not (increasing and calibration.scale > 0 and finite):
            raise ValueError("it is not an increasing function")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(
            f"{path} is not a valid calibration ({error}); fit it again with nightrank calibrate, or remove the file"
        ) from None
    return calibration


def describe(folder: Path) -> dict[str, Any] | None:
    """The whole calibration.json of a model's folder, figures included, for the manifest; None if there is none."""
    path = folder / FILE
    stored: dict[str, Any] | None = parse_json(read_text(path)) if path.is_file() else None
    return stored


def write(folder: Path, calibration: Calibration, *, figures: dict[str, Any]) -> Path:
    """Store a calibration in its model's folder, with the figures of its fit."""
    path = folder / FILE
    stored = {**dataclasses.asdict(calibration), **figures}
    path.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    return path
