"""Fits a model's calibration on judged sets: `nightrank calibrate`.

Candidates are a night's own (BM25's best, or a question's own), each a pair that is relevant or not; one without a
judgement counts as not relevant, as in every measure. The error is cross-validated: a calibration is fitted on each
half of the questions and measured on the other. The calibration that is stored is fitted on all.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.evaluate.files import check_targets
from pipelines.evaluate.judged_sets import JudgedSet, Selection, read_sets, set_names
from pipelines.evaluate.run import logits_of
from pipelines.evaluate.scores import Count
from pipelines.evaluate.systems import LoadedSystem, load_cross_encoder
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
    """A calibration, its cross-validated error, and where it is stored."""

    calibration: Calibration
    method: Method
    pairs: dict[str, int]  # by set
    before: float  # expected calibration error of the sigmoid, 0 to 1
    after: float  # of the fits, on held-out questions
    bins_before: Bins
    bins_after: Bins
    path: Path | None = None  # None: not stored


def calibrate(
    model: str,
    sets: Sequence[Path],
    *,
    method: Method = "platt",
    backend: str = "",
    split: str = "dev",
    top_k: int = 50,
    own: bool = False,
    max_length: int = 256,
    max_queries: int = 0,
    work: Path | None = None,
    dry_run: bool = False,
    on_indexed: Callable[[int], None] | None = None,
    on_scored: Count = lambda pairs: None,
) -> Calibrated:
    """Fit the calibration of a model's scores on judged sets, and store it beside the model.

    Args:
        model: a cross-encoder's folder, or "default".
        sets: folders in BEIR's layout, with qrels/SPLIT.tsv; grades of 1 and above are relevant.
        method: platt, temperature or isotonic; see rerank_core.ranking.calibration.
        backend: of the model; "" is the one for its folder.
        split: of the queries and judgements.
        top_k: candidates of a question, BM25's best.
        own: rank a question's own candidates instead, if it has some.
        max_length: tokens that the model reads.
        max_queries: questions of a set, drawn by hash; 0 is all.
        work: folder that caches the sets' indices, and scores, for the next call.
        dry_run: store nothing.
        on_indexed: called with the number of passages indexed since the last call.
        on_scored: called with the number of inputs scored since the last call.

    Raises:
        ConfigError: scikit-learn is not installed, the model gives no logits, two sets have one name, or a wrong value.
        JudgementError, SourceError: a set cannot be used.
        ModelError, MissingEngine: the model cannot be loaded, or its folder cannot be written to.
        CalibrationError: nothing can be fitted on the pairs.
        ScoringFailed: the model is broken.
    """
    _check_installed("sklearn", "scikit-learn", extra="train")
    set_names(sets)
    # Fusion weights have a calibration of their own, so it is the model alone that is calibrated.
    system = load_cross_encoder(model, backend=backend, max_length=max_length, work=work)
    selection = Selection(split, own=own, top_k=top_k, max_queries=max_queries)
    with read_sets(sets, selection=selection, work=work, on_progress=on_indexed) as judged:
        pairs = {one_set.name: judged_pairs(one_set, system, on_scored=on_scored) for one_set in judged}
    calibrated = calibrate_pairs(pairs, method=method)
    return calibrated if dry_run else calibrated._replace(path=store(system.system.path, calibrated))


def judged_pairs(
    judged: JudgedSet, system: LoadedSystem, *, on_scored: Count = lambda pairs: None
) -> list[Pair]:
    """The candidates of a set's questions, scored."""
    lowest = judged.selection.min_relevance
    return [
        Pair(f"{judged.name}/{query}", logit, judged.qrels[query].get(item, 0) >= lowest)
        for query, order in logits_of(judged, system, on_scored=on_scored).items()
        for item, logit in order
        if logit is not None
    ]


def calibrate_pairs(pairs: Mapping[str, Sequence[Pair]], *, method: Method) -> Calibrated:
    """Fit on all sets' pairs together.

    Raises:
        CalibrationError: nothing can be fitted on them, or on half of their questions.
    """
    every = [pair for of_set in pairs.values() for pair in of_set]
    halves = [[pair for pair in every if _half(pair) == half] for half in (0, 1)]
    fitted: list[float] = []
    for half, other in ((0, 1), (1, 0)):
        of_half = _fit(halves[half], method=method)
        fitted += [of_half(pair.logit) for pair in halves[other]]
    held_out = [*halves[1], *halves[0]]  # in the order of `fitted`
    relevant = [pair.relevant for pair in held_out]
    sigmoids = [UNCALIBRATED(pair.logit) for pair in held_out]
    return Calibrated(
        _fit(every, method=method),
        method,
        {name: len(of_set) for name, of_set in pairs.items()},
        calibration.expected_error(sigmoids, relevant),
        calibration.expected_error(fitted, relevant),
        calibration.reliability(sigmoids, relevant),
        calibration.reliability(fitted, relevant),
    )


def store(model: str, calibrated: Calibrated) -> Path:
    """Write the calibration to the model's folder ("" is the default model).

    Raises:
        ModelError: there is no such folder, or it cannot be written to.
    """
    folder = Path(model) if model else DEFAULT_MODEL
    figures = {
        "method": calibrated.method,
        "pairs": calibrated.pairs,
        "ece_before": round(calibrated.before, 4),
        "ece_after": round(calibrated.after, 4),
    }
    try:
        return calibration.write(folder, calibrated.calibration, figures=figures)
    except OSError as error:
        raise ModelError(
            f"cannot write {folder / calibration.FILE} ({error.strerror}): copy the model to a folder that you can "
            "write to"
        ) from None


def as_json(calibrated: Calibrated) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        **calibrated._asdict(),
        "calibration": dataclasses.asdict(calibrated.calibration),
        "path": str(calibrated.path) if calibrated.path else None,
    }


def check_plot(path: Path) -> None:
    """Refuse a plot that cannot be drawn, before all the scoring.

    Raises:
        ConfigError: matplotlib is not installed, or the plot's folder does not exist.
    """
    _check_installed("matplotlib", "matplotlib", extra="bench")
    check_targets(path)


def plot(calibrated: Calibrated, path: Path) -> None:
    """Draw the reliability diagram, before and after; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for bins, name, error in (
        (calibrated.bins_before, "sigmoid", calibrated.before),
        (calibrated.bins_after, calibrated.method, calibrated.after),
    ):
        axes.plot(
            [b[0] for b in bins], [b[1] for b in bins], marker="o", label=f"{name}, ECE {100 * error:.1f} %"
        )
    axes.set_xlabel("score")
    axes.set_ylabel("share that is relevant")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=120)


def _check_installed(module: str, package: str, *, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"nightrank calibrate needs {package}, which is not installed: pip install 'nightrank[{extra}]'"
        )


def _half(pair: Pair) -> int:
    return int(fingerprint("calibrate", pair.query_id)[:8], 16) % 2


def _fit(pairs: Sequence[Pair], *, method: Method) -> Calibration:
    return calibration.fit_calibration([p.logit for p in pairs], [p.relevant for p in pairs], method=method)
