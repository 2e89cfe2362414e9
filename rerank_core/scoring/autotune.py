"""Which engine runs a model fastest on this machine, among those that rank as the model in full precision does.

None wins everywhere: int8 is twice as fast on one processor and slower on the next, and costs one model nothing and
another its ranking. So every engine that is installed scores the same pairs in turns, and one whose order differs too
much from full precision's is dropped however fast it is. The choice is kept with the machine's name.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rerank_core.config.backends import BACKENDS, Backend
from rerank_core.errors import MissingEngine, ModelError, ScoringFailed
from rerank_core.inference.batching import Pair
from rerank_core.inference.machine import machine_name
from rerank_core.inference.model_folder import file_digest
from rerank_core.inference.onnx_file import DYNAMIC_QUANTISATION, external_files, model_holds
from rerank_core.scoring.protocol import Scorer
from rerank_core.text import fingerprint

MIN_AGREEMENT = 0.99
"""nDCG@10 of an engine's order by full precision's own, below which the engine is dropped."""

ROUNDS = 3
CLOSE = 2.0
"""How many times as long as the fastest an engine may take and still be measured more than once."""

WARM = 64
"""Pairs that an engine scores before it is timed."""

VERSION = 1
_FAILURES = (ModelError, MissingEngine, ScoringFailed, ValueError, RuntimeError)


class Choice(NamedTuple):
    """A way to run a model: fields of `rerank_core.scoring.load.Options`, and the backend."""

    backend: str
    precision: str = ""
    onnx_file: str = ""
    device: str = "cpu"

    @property
    def label(self) -> str:
        return " ".join(part for part in self if part and part != "cpu")


class Measured(NamedTuple):
    """What became of a choice; figures are 0 where it could not be run."""

    choice: Choice
    pairs_per_second: float
    agreement: float  # nDCG@10 by the reference's order, mean over the queries
    correlation: float  # Spearman's, mean over the queries
    dropped: str  # why it cannot be chosen; "" if it can


class Tuning(NamedTuple):
    """A machine's measurements of a model."""

    machine: str
    model: str  # model_key
    max_length: int
    reference: str  # label of the choice that the others were held against
    pairs: int
    measured: tuple[Measured, ...]

    @property
    def best(self) -> Choice:
        """The fastest that was not dropped.

        Raises:
            ModelError: none is left.
        """
        usable = [m for m in self.measured if not m.dropped]
        if not usable:
            reasons = "; ".join(f"{m.choice.label}: {m.dropped}" for m in self.measured)
            raise ModelError(f"no engine here can run the model ({reasons})")
        return max(usable, key=lambda m: m.pairs_per_second).choice


def choices(folder: Path, *, gpu: bool = False) -> list[Choice]:
    """The ways to run a folder's model with what is installed here, full precision first."""
    files = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    quantised = [str(path.relative_to(folder)) for path in files if model_holds(path, DYNAMIC_QUANTISATION)]
    exact = [name for path in files if (name := str(path.relative_to(folder))) not in quantised]
    made = [
        Choice(name, precision, onnx_file, device)
        for name, backend in BACKENDS.items()
        if all(map(_installed, backend.engines))
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
    """Measure every choice on the pairs, in turns, and hold its order against the first one's that runs.

    Args:
        folder: the model's folder.
        groups: the pairs of each query, as a night would score them.
        load: opens a choice.
        options: what to try; the first that can be loaded is the reference, so full precision goes first.
        max_length: longest input in tokens.
        min_agreement: see MIN_AGREEMENT.
        rounds: times more that the fastest choices score all pairs, in turns; the median counts.
        clock: seconds.
        on_measured: called with a label as it is tried.

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
            measured.append(Measured(choice, 0.0, 0.0, 0.0, run.failed))
            continue
        sizes = [len(group) for group in groups]
        agreement, correlation = compare(runs[reference].logits, run.logits, sizes)
        speed = len(pairs) / max(1e-9, statistics.median(run.seconds))
        low = f"its order agrees with {reference.label}'s to {agreement:.4f} only"
        dropped = low if agreement < min_agreement else ""
        measured.append(
            Measured(choice, round(speed, 2), round(agreement, 5), round(correlation, 5), dropped)
        )
    return Tuning(machine_name(), model_key(folder), max_length, reference.label, len(pairs), tuple(measured))


@dataclasses.dataclass
class _Runs:
    """What a choice answered, how long it took each time, and why it cannot go on."""

    logits: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.float32))
    seconds: list[float] = dataclasses.field(default_factory=list)
    failed: str = ""


def _first_run(scorer: Scorer, pairs: Sequence[Pair], clock: Callable[[], float]) -> _Runs:
    """All pairs once, after a few to warm up.

    Raises:
        ScoringFailed: a logit is not finite.
    """
    scorer.score(pairs[:WARM])
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
    """Time the choices that are close to the fastest in turns; one that fails now is marked."""
    limit = CLOSE * min((run.seconds[0] for run in runs.values() if run.seconds), default=0.0)
    close = [choice for choice, run in runs.items() if run.seconds and run.seconds[0] <= limit]
    for _ in range(rounds):
        for choice in [choice for choice in close if not runs[choice].failed]:
            start = clock()
            try:
                opened[choice].score(pairs)
            except _FAILURES as error:
                runs[choice].failed = str(error)
            runs[choice].seconds.append(clock() - start)


def compare(reference: np.ndarray, other: np.ndarray, sizes: Sequence[int]) -> tuple[float, float]:
    """(nDCG@10 of `other`'s order by `reference`'s, Spearman's correlation), each the mean over the groups.

    The gain of a group's k-th best by the reference is 11 - k, 0 beyond the tenth: what is lost is what a reader of the
    first ten would see change. Groups of one pair say nothing and are left out.

    Args:
        reference, other: logits, float32 [pairs].
        sizes: pairs of each group, in order; their sum is the number of pairs.
    """
    found, ranks = [], []
    start = 0
    for size in sizes:
        one, two = reference[start : start + size], other[start : start + size]
        start += size
        if size < 2:
            continue
        gains = np.zeros(size)
        best = np.argsort(-one, kind="stable")
        gains[best[:10]] = np.arange(10, 10 - min(10, size), -1)
        discounts = 1 / np.log2(np.arange(2, min(10, size) + 2))
        ideal = (np.sort(gains)[::-1][:10] * discounts).sum()
        found.append((gains[np.argsort(-two, kind="stable")[:10]] * discounts).sum() / ideal)
        ranks.append(_spearman(one, two))
    return (float(np.mean(found)), float(np.mean(ranks))) if found else (1.0, 1.0)


def _spearman(one: np.ndarray, two: np.ndarray) -> float:
    places = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (one, two)]
    return float(np.corrcoef(places[0], places[1])[0, 1])


def model_key(folder: Path) -> str:
    """32 hex digits over the folder's own weights and tokenizer; what autotune adds to the folder does not count."""
    patterns = ("*.onnx", "onnx/*.onnx", "*.safetensors", "tokenizer.json", "config.json")
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    files |= {held for path in files if path.suffix == ".onnx" for held in external_files(path)}
    return fingerprint(*(part for path in sorted(files) for part in (path.name, file_digest(path))))[:32]


def default_path() -> Path:
    """Where tunings are kept unless `scoring.tuning` says otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "nightrank" / "tuning.json"


def find(path: Path, *, machine: str, model: str, max_length: int) -> Tuning | None:
    """The tuning that is kept for this machine, model and length.

    Raises:
        ModelError: the file is not one of ours.
    """
    for row in _rows(path):
        if (row.machine, row.model, row.max_length) == (machine, model, max_length):
            return row
    return None


def keep(path: Path, tuning: Tuning) -> None:
    """Write a tuning to the file, in place of an older one of the same machine, model and length.

    Raises:
        ModelError: the file is not one of ours, or cannot be written.
    """
    same = (tuning.machine, tuning.model, tuning.max_length)
    rows = [row for row in _rows(path) if (row.machine, row.model, row.max_length) != same]
    held = [plain(row) for row in (*rows, tuning)]
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(
            json.dumps({"version": VERSION, "tunings": held}, indent=2) + "\n", encoding="utf-8"
        )
        temporary.replace(path)
    except OSError as error:
        raise ModelError(
            f"cannot keep what was measured in {path} ({error}); set scoring.tuning to a file that can be written"
        ) from None


def plain(tuning: Tuning) -> dict[str, Any]:
    """A tuning as JSON holds it."""
    measured = [{**m._asdict(), "choice": m.choice._asdict()} for m in tuning.measured]
    return {**tuning._asdict(), "measured": measured}


def _rows(path: Path) -> list[Tuning]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        rows = held["tunings"] if held["version"] == VERSION else []
        return [
            Tuning(
                **{
                    **row,
                    "measured": tuple(
                        Measured(**{**m, "choice": Choice(**m["choice"])}) for m in row["measured"]
                    ),
                }
            )
            for row in rows
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is no file of nightrank autotune ({error}); remove it and measure again"
        ) from None


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
