"""`nightrank calibrate`: fits what a model's logits mean on judged sets, and says how true that is of other questions.

Candidates are a night's own (BM25's best, or a question's own), each a pair that is relevant or is not; one without a
judgement counts as not relevant, as in every measure. The error is told of questions that the fit did not see: it is
fitted on each half of them and measured on the other; what is stored is fitted on all.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.evaluate.judged_sets import JudgedSet
from pipelines.evaluate.run import logits_of
from pipelines.evaluate.systems import Opened
from rerank_core.errors import ConfigError, ModelError
from rerank_core.ranking import calibration
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration, Method
from rerank_core.scoring.load import DEFAULT_MODEL
from rerank_core.text import fingerprint

Bins = list[tuple[float, float, int]]


class Pair(NamedTuple):
    """One judged candidate."""

    query_id: str
    logit: float
    relevant: bool


class Calibrated(NamedTuple):
    """A calibration, and what it is worth on questions that a fit did not see."""

    calibration: Calibration
    method: Method
    pairs: dict[str, int]  # by set
    before: float  # expected calibration error of the sigmoid, 0 to 1
    after: float  # of the fits
    bins_before: Bins
    bins_after: Bins


def check(*, plot: bool) -> None:
    """Refuse what will be missed only after all the scoring.

    Raises:
        ConfigError: a package is not installed; the message names the extra.
    """
    wanted = [("sklearn", "scikit-learn", "train")] + (
        [("matplotlib", "matplotlib", "bench")] if plot else []
    )
    for module, package, extra in wanted:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"nightrank calibrate needs {package}: pip install 'nightrank[{extra}]'")


def judged_pairs(
    judged: JudgedSet, opened: Opened, *, on_scored: Callable[[int], None] = lambda pairs: None
) -> list[Pair]:
    """The candidates of a set's questions, scored.

    Raises:
        ConfigError: the system gives no logits.
    """
    if not opened.gives_logits:
        raise ConfigError(
            f"{opened.system.name} gives no logits, so there is nothing to calibrate; name a cross-encoder"
        )
    orders = logits_of(judged, opened, on_scored=on_scored)
    lowest = judged.wanted.min_relevance
    return [
        Pair(f"{judged.name}/{query}", logit, judged.qrels[query].get(item, 0) >= lowest)
        for query, order in orders.items()
        for item, logit in order
        if logit is not None
    ]


def calibrate(pairs: Mapping[str, Sequence[Pair]], *, method: Method) -> Calibrated:
    """Fit on all sets' pairs together.

    Raises:
        CalibrationError: nothing can be fitted on them, or on half of their questions.
    """
    every = [pair for own in pairs.values() for pair in own]
    halves = [[pair for pair in every if _half(pair) == half] for half in (0, 1)]
    said: list[float] = []
    for half, other in ((0, 1), (1, 0)):
        fitted = _fit(halves[half], method=method)
        said += [fitted(pair.logit) for pair in halves[other]]
    ordered = [*halves[1], *halves[0]]  # as `said`
    relevant = [pair.relevant for pair in ordered]
    plain = [UNCALIBRATED(pair.logit) for pair in ordered]
    return Calibrated(
        _fit(every, method=method),
        method,
        {name: len(own) for name, own in pairs.items()},
        calibration.expected_error(plain, relevant),
        calibration.expected_error(said, relevant),
        calibration.reliability(plain, relevant),
        calibration.reliability(said, relevant),
    )


def keep(model: str, found: Calibrated) -> Path:
    """Store the calibration in the model's folder.

    Raises:
        ModelError: there is no such folder, or it cannot be written to.
    """
    folder = Path(model) if model else DEFAULT_MODEL
    told = {
        "method": found.method,
        "pairs": found.pairs,
        "ece_before": round(found.before, 4),
        "ece_after": round(found.after, 4),
    }
    try:
        return calibration.write(folder, found.calibration, figures=told)
    except OSError as error:
        raise ModelError(
            f"cannot write {folder / calibration.FILE} ({error.strerror}): copy the model to a folder of yours"
        ) from None


def plain(found: Calibrated) -> dict[str, Any]:
    """All of it as plain data."""
    return {**found._asdict(), "calibration": dataclasses.asdict(found.calibration)}


def plot(found: Calibrated, to: Path) -> None:
    """Draw the reliability of both; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for bins, name, error in (
        (found.bins_before, "sigmoid", found.before),
        (found.bins_after, found.method, found.after),
    ):
        axes.plot(
            [b[0] for b in bins], [b[1] for b in bins], marker="o", label=f"{name}, ECE {100 * error:.1f} %"
        )
    axes.set_xlabel("score")
    axes.set_ylabel("share that is relevant")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    pyplot.tight_layout()
    pyplot.savefig(to, dpi=120)


def _half(pair: Pair) -> int:
    return int(fingerprint("calibrate", pair.query_id)[:8], 16) % 2


def _fit(pairs: Sequence[Pair], *, method: Method) -> Calibration:
    return calibration.fit_calibration([p.logit for p in pairs], [p.relevant for p in pairs], method=method)
