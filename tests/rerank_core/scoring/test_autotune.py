"""Autotune: how orders are compared, what is chosen, and what is tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.errors import MissingEngine, ModelError, ScoringFailed
from rerank_core.inference.batching import Pair
from rerank_core.scoring import autotune
from rerank_core.scoring.autotune import choices, compare_orders, tune
from rerank_core.scoring.protocol import Scorer
from rerank_core.scoring.tuning import Choice, Measurement, Tuning, model_key

GROUPS = [[("who", str(n)) for n in range(6)], [("dune", str(n)) for n in range(4)]]


# --- orders

GROUP = st.integers(0, 14).flatmap(
    lambda size: st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=size, max_size=size)
)
LOGITS = st.lists(GROUP, max_size=5)


def arrays(groups: list[list[tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    both = np.array([pair for group in groups for pair in group], np.float32).reshape(-1, 2)
    return both[:, 0], both[:, 1], [len(group) for group in groups]


@pytest.mark.parametrize(
    ("one", "two", "sizes", "agreement", "correlation"),
    [
        # Gains 10, 9, 8 at discounts 1, 0.6309, 0.5: ideal 19.6784.
        ([3, 2, 1], [3, 1, 2], [3], 19.547454 / 19.678386, 0.5),
        ([3, 2, 1], [1, 2, 3], [3], (8 + 5.678367 + 5) / 19.678386, -1.0),
        # The mean of two groups; of the second, gains 10 and 9.
        ([3, 2, 1, 5, 4], [3, 1, 2, 0, 1], [3, 2], (0.993346 + 15.309298 / 15.678367) / 2, -0.25),
        ([3, 2, 1], [0.3, 0.2, 0.1], [3], 1.0, 1.0),
    ],
)
def test_agreement_by_hand(
    one: list[float], two: list[float], sizes: list[int], agreement: float, correlation: float
) -> None:
    found = compare_orders(np.array(one, np.float32), np.array(two, np.float32), sizes)
    assert found == pytest.approx((agreement, correlation), abs=1e-5)


def test_beyond_the_tenth_only_the_correlation_sees_a_change() -> None:
    reference = np.arange(13, 0, -1).astype(np.float32)
    swapped = reference[[*range(11), 12, 11]]
    agreement, correlation = compare_orders(reference, swapped, [13])
    assert agreement == 1.0
    assert 0.9 < correlation < 1.0
    assert compare_orders(reference, np.roll(reference, -1), [13])[0] < 1.0  # the last came first


@given(LOGITS)
def test_agreement_is_a_share_and_knows_the_order_alone(groups: list[list[tuple[int, int]]]) -> None:
    one, two, sizes = arrays(groups)
    agreement, correlation = compare_orders(one, two, sizes)
    assert 0 <= agreement <= 1 + 1e-9
    assert -1 - 1e-9 <= correlation <= 1 + 1e-9
    for same in (2 * two + 1, two**3, np.arctan(two.astype(np.float64))):
        assert compare_orders(one, same, sizes) == (agreement, correlation)
    assert compare_orders(one, one, sizes) == pytest.approx((1.0, 1.0))


@given(LOGITS, st.integers(0, 5), st.tuples(st.integers(-50, 50), st.integers(-50, 50)))
def test_a_group_of_one_pair_says_nothing(
    groups: list[list[tuple[int, int]]], at: int, alone: tuple[int, int]
) -> None:
    assert compare_orders(*arrays([*groups[:at], [alone], *groups[at:]])) == compare_orders(*arrays(groups))


# --- the measurement


class Clock:
    """Seconds that only engines make pass."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Engine:
    """Answers by a function, after seconds: the first for the warm-up, the last for all calls that follow."""

    fingerprint = ""

    def __init__(self, clock: Clock, logit: Callable[[int], float], seconds: Sequence[float]) -> None:
        self._clock, self._logit, self._seconds, self.calls = clock, logit, list(seconds), 0
        self.texts: list[set[str]] = []  # of each call

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        self._clock.now += self._seconds[min(self.calls, len(self._seconds) - 1)]
        self.calls += 1
        self.texts.append({text for pair in pairs for text in pair})
        return np.array([self._logit(int(passage.split()[-1])) for _, passage in pairs], np.float32)


def falling(place: int) -> float:
    return -place


def measured(
    folder: Path, engines: dict[str, Any], groups: Sequence[Sequence[Pair]] = GROUPS, **options: Any
) -> tuple[Tuning, dict[str, Engine]]:
    """Tune over {backend: (logit, *seconds) or an error that loading it raises}."""
    clock, opened = Clock(), {}

    def load(choice: Choice) -> Scorer:
        held = engines[choice.backend]
        if isinstance(held, Exception):
            raise held
        opened[choice.backend] = Engine(clock, held[0], held[1:])
        return opened[choice.backend]

    found = tune(
        folder,
        groups,
        load=load,
        options=[Choice(name) for name in engines],
        max_length=64,
        clock=clock,
        **options,
    )
    return found, opened


def test_the_fastest_is_chosen(tmp_path: Path) -> None:
    found, _ = measured(tmp_path, {"exact": (falling, 2.0), "slow": (falling, 3.0), "fast": (falling, 1.25)})
    assert found.best == Choice("fast")
    assert [(m.choice.backend, m.pairs_per_second, m.agreement, m.correlation) for m in found.measured] == [
        ("exact", 5.0, 1.0, 1.0),
        ("slow", 3.33, 1.0, 1.0),
        ("fast", 8.0, 1.0, 1.0),
    ]
    assert (found.reference, found.pairs, found.max_length) == ("exact", 10, 64)
    assert (found.machine, found.model) == (autotune.machine_name(), model_key(tmp_path))


def test_an_engine_of_another_order_is_dropped_however_fast(tmp_path: Path) -> None:
    engines = {"exact": (falling, 2.0), "rough": (lambda place: place, 0.1)}
    found, _ = measured(tmp_path, engines)
    assert found.best == Choice("exact")
    rough = found.measured[1]
    assert rough.dropped == f"its order agrees with exact's only to {rough.agreement:.4f}"
    assert rough.correlation == -1.0
    assert measured(tmp_path, engines, min_agreement=rough.agreement - 0.01)[0].best == Choice("rough")


def test_an_engine_that_answers_no_number_is_dropped(tmp_path: Path) -> None:
    found, _ = measured(tmp_path, {"exact": (falling, 2.0), "half": (lambda _: float("nan"), 0.1)})
    assert found.best == Choice("exact")
    assert found.measured[1].dropped == "it answers 10 of 10 pairs with NaN or infinity"


@pytest.mark.parametrize(
    "error",
    [ModelError("no file"), MissingEngine("no file"), ScoringFailed("no file"), RuntimeError("no file")],
)
def test_an_engine_that_fails_stays_in_the_table_with_its_reason(tmp_path: Path, error: Exception) -> None:
    found, _ = measured(tmp_path, {"missing": error, "onnx": (falling, 2.0), "torch": (falling, 3.0)})
    assert found.measured[0] == Measurement(Choice("missing"), 0.0, 0.0, 0.0, "no file")
    assert (found.reference, found.best) == ("onnx", Choice("onnx"))  # of those that run, the first


def test_an_engine_that_fails_on_the_pairs_is_no_reference(tmp_path: Path) -> None:
    def raising(place: int) -> float:
        raise RuntimeError("out of memory")

    found, _ = measured(tmp_path, {"first": (raising, 1.0), "second": (falling, 2.0)})
    assert (found.reference, found.measured[0].dropped) == ("second", "out of memory")


def test_an_engine_that_fails_later_is_dropped_too(tmp_path: Path) -> None:
    calls: list[int] = []

    def tiring(place: int) -> float:
        calls.append(place)
        if len(calls) > 2 * 10:  # all pairs twice: the warm-up and the first measurement
            raise RuntimeError("out of memory")
        return -place

    found, _ = measured(tmp_path, {"exact": (falling, 2.0), "tiring": (tiring, 1.0)})
    assert (found.measured[1].dropped, found.best) == ("out of memory", Choice("exact"))


def test_only_the_fast_are_measured_again(tmp_path: Path) -> None:
    # Warm-up, then rounds; one round in which the machine was busy does not count.
    engines = {
        "fast": (falling, 9.0, 1.0, 5.0, 1.0),
        "close": (falling, 9.0, 2.0),
        "slow": (falling, 0.0, 2.5),
    }
    found, opened = measured(tmp_path, engines, rounds=2)
    assert {name: engine.calls for name, engine in opened.items()} == {"fast": 4, "close": 4, "slow": 2}
    assert [m.pairs_per_second for m in found.measured] == [10.0, 5.0, 4.0]


def test_every_choice_is_announced(tmp_path: Path) -> None:
    labels: list[str] = []
    measured(tmp_path, {"one": (falling, 1.0), "two": ModelError("no")}, on_measured=labels.append)
    assert labels == ["one", "two"]


def test_no_text_is_timed_twice(tmp_path: Path) -> None:
    """A scorer that keeps vectors of texts would only look them up."""
    _, engines = measured(tmp_path, {"onnx": (falling, 1.0, 1.0), "torch": (falling, 1.0, 1.0)})
    for engine in engines.values():
        assert engine.calls == len(engine.texts) == 2 + autotune.ROUNDS
        assert sum(map(len, engine.texts)) == len(set().union(*engine.texts))


def test_without_pairs_nothing_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pairs to measure by"):
        measured(tmp_path, {"one": (falling, 1.0)}, [[], []])


def test_without_an_engine_all_reasons_are_named(tmp_path: Path) -> None:
    found, _ = measured(tmp_path, {"one": ModelError("no file"), "two": MissingEngine("pip install two")})
    with pytest.raises(
        ModelError, match=r"no engine on this machine can run .* \(one: no file; two: pip install two\)"
    ):
        _ = found.best


# --- what is tried


def folder_with(folder: Path, *names: str) -> Path:
    """Files whose names say what they hold."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        held = b"xx DynamicQuantizeLinear xx" if "int8" in name else b"weights"
        (folder / name).write_bytes(held)
    return folder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that count as installed."""
    held = {"onnxruntime", "openvino", "torch", "transformers"}
    monkeypatch.setattr(autotune, "_installed", lambda module: module in held)
    return held


FULL, SMALL = "onnx/model.onnx", "onnx/model_int8.onnx"
OPENVINO = [Choice("openvino", "fp32", FULL), Choice("openvino", "bf16", FULL), Choice("openvino", "int8")]
TORCH = [Choice("torch", "fp32"), Choice("torch", "bf16")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([FULL], [Choice("onnx", onnx_file=FULL), *OPENVINO]),
        ([SMALL], [Choice("onnx", onnx_file=SMALL)]),
        (["model.safetensors"], TORCH),
        ([], []),
        # Full precision first: what runs first is what the others are held against.
        (
            [FULL, SMALL],
            [Choice("onnx", onnx_file=FULL), OPENVINO[0], Choice("onnx", onnx_file=SMALL), *OPENVINO[1:]],
        ),
        (["model.safetensors", SMALL], [TORCH[0], Choice("onnx", onnx_file=SMALL), TORCH[1]]),
        (
            ["model.safetensors", FULL],
            [Choice("onnx", onnx_file=FULL), OPENVINO[0], TORCH[0], *OPENVINO[1:], TORCH[1]],
        ),
    ],
)
def test_a_folder_is_tried_with_all_that_reads_it(
    tmp_path: Path, installed: set[str], files: list[str], expected: list[Choice]
) -> None:
    assert choices(folder_with(tmp_path, *files)) == expected


def test_a_bi_encoder_is_tried_with_what_runs_one(tmp_path: Path, installed: set[str]) -> None:
    folder = folder_with(tmp_path, FULL, "model.safetensors")
    (folder / "nightrank.json").write_text('{"logit": {"scale": 20, "offset": -10}}')
    assert {choice.backend for choice in choices(folder)} == {"onnx", "torch"}


def test_what_is_not_installed_is_not_tried(tmp_path: Path, installed: set[str]) -> None:
    folder = folder_with(tmp_path, FULL, "model.safetensors")
    installed.remove("transformers")
    assert {choice.backend for choice in choices(folder)} == {"onnx", "openvino"}
    installed.remove("openvino")
    assert choices(folder) == [Choice("onnx", onnx_file=FULL)]


def test_a_gpu_is_tried_too(tmp_path: Path, installed: set[str]) -> None:
    folder = folder_with(tmp_path, FULL, SMALL, "model.safetensors")
    more = [choice for choice in choices(folder, gpu=True) if choice not in choices(folder)]
    assert more == [
        Choice("onnx", onnx_file=FULL, device="cuda"),
        Choice("torch", "bf16", device="cuda"),
        Choice("torch", "fp16", device="cuda"),
    ]
    assert [choice.label for choice in more] == [
        "onnx onnx/model.onnx cuda",
        "torch bf16 cuda",
        "torch fp16 cuda",
    ]


def test_an_empty_file_is_tried_and_not_a_defect(tmp_path: Path, installed: set[str]) -> None:
    folder_with(tmp_path, FULL).joinpath(FULL).write_bytes(b"")
    assert choices(tmp_path)[0] == Choice("onnx", onnx_file=FULL)
