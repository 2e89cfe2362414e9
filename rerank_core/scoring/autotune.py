"""Which engine runs a model fastest on this machine, among those that rank as the model in full precision does.

No engine is the fastest everywhere: int8 is twice as fast on one processor and slower on the next, and costs one model
nothing and another its ranking. So every engine that is installed scores the same pairs in turns, and one whose order
differs too much from full precision's is dropped, however fast. The result is stored with the machine's name.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rerank_core.config.backends import BACKENDS, Backend
from rerank_core.errors import MissingEngine, ModelError, ScoringFailed
from rerank_core.inference.batching import Pair
from rerank_core.inference.machine import machine_name
from rerank_core.inference.model_folder import has_logit
from rerank_core.inference.onnx_file import precision_of
from rerank_core.scoring.protocol import Scorer
from rerank_core.scoring.tuning import Choice, Measurement, Tuning, model_key, renewed

MIN_AGREEMENT = 0.99
"""nDCG@10 of an engine's order by full precision's own, below which the engine is dropped."""

ROUNDS = 3
CLOSE = 2.0
"""An engine that takes more than this many times as long as the fastest is measured only once."""

WARM = 64
"""Pairs that an engine scores before it is timed."""

_FAILURES = (ModelError, MissingEngine, ScoringFailed, ValueError, RuntimeError)


def choices(folder: Path, *, gpu: bool = False) -> list[Choice]:
    """The ways to run a folder's model with what is installed here, full precision first."""
    files = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    quantised = [str(path.relative_to(folder)) for path in files if precision_of(path) == "int8"]
    exact = [name for path in files if (name := str(path.relative_to(folder))) not in quantised]
    bi_encoder = has_logit(folder)
    made = [
        Choice(name, precision, onnx_file, device)
        for name, backend in BACKENDS.items()
        if all(map(_installed, backend.engines)) and (backend.bi_encoders or not bi_encoder)
        for precision, device in backend.autotune
        if gpu or device == "cpu"
        for onnx_file in _files(backend, folder, exact, quantised, precision=precision, device=device)
    ]
    return sorted(
        made, key=lambda choice: choice.precision not in ("", "fp32") or choice.onnx_file in quantised
    )


def _files(
    backend: Backend, folder: Path, exact: list[str], quantised: list[str], *, precision: str, device: str
) -> list[str]:
    """Values of onnx_file with which a backend can run the folder's model; [""] if it needs none."""
    if backend.weights == "safetensors":
        return [""] if any(folder.glob("*.safetensors")) else []
    if backend.weights != "onnx":
        return [""]
    if precision == "int8":  # quantised from the first file, and stored beside it
        return [""] if exact else []
    if precision:
        return exact[:1]
    return exact + quantised if device == "cpu" else exact


def tune(
    folder: Path,
    groups: Sequence[Sequence[Pair]],
    *,
    load: Callable[[Choice], Scorer],
    options: Sequence[Choice],
    max_length: int,
    min_agreement: float = MIN_AGREEMENT,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
    on_measured: Callable[[str], None] = lambda label: None,
) -> Tuning:
    """Measure every choice on the pairs, in turns, and compare its order with that of the first one that runs.

    Args:
        folder: the model's folder.
        groups: the pairs of each query, as a night would score them.
        load: opens a choice.
        options: what to try; the first that can be loaded is the reference, so full precision goes first.
        max_length: longest input in tokens.
        min_agreement: see MIN_AGREEMENT.
        rounds: how many more times the fastest choices score all pairs, in turns; the median counts.
        clock: seconds.
        on_measured: called with the label of each choice before it is loaded.

    Raises:
        ValueError: no pairs.
    """
    pairs = [pair for group in groups for pair in group]
    if not pairs:
        raise ValueError("no pairs to measure by; give the queries and passages of a night")
    opened: dict[Choice, Scorer] = {}
    runs: dict[Choice, _Runs] = {}
    for choice in options:
        on_measured(choice.label)
        try:
            scorer = load(choice)
            runs[choice] = _first_run(scorer, pairs, clock)
            opened[choice] = scorer
        except _FAILURES as error:
            runs[choice] = _Runs(failed=str(error))
    _run_again(opened, runs, pairs, rounds=rounds, clock=clock)
    reference = next((choice for choice in options if runs[choice].seconds), Choice(""))
    measured = []
    for choice, run in runs.items():
        if run.failed:
            measured.append(Measurement(choice, 0.0, 0.0, 0.0, run.failed))
            continue
        sizes = [len(group) for group in groups]
        agreement, correlation = compare_orders(runs[reference].logits, run.logits, sizes)
        speed = len(pairs) / max(1e-9, statistics.median(run.seconds))
        low = f"its order agrees with {reference.label}'s only to {agreement:.4f}"
        dropped = low if agreement < min_agreement else ""
        measured.append(
            Measurement(choice, round(speed, 2), round(agreement, 5), round(correlation, 5), dropped)
        )
    return Tuning(machine_name(), model_key(folder), max_length, reference.label, len(pairs), tuple(measured))


@dataclasses.dataclass
class _Runs:
    """A choice's logits, the seconds of each of its runs, and why it failed."""

    logits: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.float32))
    seconds: list[float] = dataclasses.field(default_factory=list)
    failed: str = ""


def _first_run(scorer: Scorer, pairs: Sequence[Pair], clock: Callable[[], float]) -> _Runs:
    """All pairs once, after a few to warm up.

    Raises:
        ScoringFailed: a logit is not finite.
    """
    scorer.score(renewed(pairs[:WARM], 0))
    start = clock()
    logits = scorer.score(pairs)
    seconds = clock() - start
    if bad := int((~np.isfinite(logits)).sum()):
        raise ScoringFailed(f"it answers {bad} of {len(pairs)} pairs with NaN or infinity")
    return _Runs(logits, [seconds])


def _run_again(
    opened: dict[Choice, Scorer],
    runs: dict[Choice, _Runs],
    pairs: Sequence[Pair],
    *,
    rounds: int,
    clock: Callable[[], float],
) -> None:
    """Time the choices that are close to the fastest, in turns."""
    limit = CLOSE * min((run.seconds[0] for run in runs.values() if run.seconds), default=0.0)
    close = [choice for choice, run in runs.items() if run.seconds and run.seconds[0] <= limit]
    for turn in range(1, rounds + 1):
        fresh = renewed(pairs, turn)
        for choice in [choice for choice in close if not runs[choice].failed]:
            start = clock()
            try:
                opened[choice].score(fresh)
            except _FAILURES as error:
                runs[choice].failed = str(error)
            runs[choice].seconds.append(clock() - start)


def compare_orders(reference: np.ndarray, other: np.ndarray, sizes: Sequence[int]) -> tuple[float, float]:
    """(nDCG@10 of `other`'s order by `reference`'s, Spearman's correlation), each the mean over the groups.

    The gain of a group's k-th best by the reference is 11 - k, and 0 beyond the tenth. Groups of one pair have no order
    and are left out.

    Args:
        reference, other: logits, float32 [pairs].
        sizes: pairs of each group, in order; their sum is the number of pairs.
    """
    agreements, correlations = [], []
    start = 0
    for size in sizes:
        ours, theirs = reference[start : start + size], other[start : start + size]
        start += size
        if size < 2:
            continue
        gains = np.zeros(size)
        best = np.argsort(-ours, kind="stable")
        gains[best[:10]] = np.arange(10, 10 - min(10, size), -1)
        discounts = 1 / np.log2(np.arange(2, min(10, size) + 2))
        ideal = (np.sort(gains)[::-1][:10] * discounts).sum()
        agreements.append((gains[np.argsort(-theirs, kind="stable")[:10]] * discounts).sum() / ideal)
        correlations.append(_spearman(ours, theirs))
    return (float(np.mean(agreements)), float(np.mean(correlations))) if agreements else (1.0, 1.0)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (x, y)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
