"""A row alone scores as in any batch: every model is checked by value when it is opened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.errors import ModelError, OutOfMemory
from rerank_core.inference.encoding import Row
from rerank_core.scoring import batch_check
from rerank_core.scoring.batch_check import TOLERANCES, WIDTHS, check_batches, difference
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import RunsBatches, why_row_by_row

PAIRS = [("who wrote the novel dune", "dune was written by frank herbert, " * n) for n in range(5)]


class Toy:
    """A scorer of one logit a row, and an error that depends on the batch's width and the row's padding."""

    device = "cpu"

    def __init__(
        self,
        wrong: Callable[[int, int], float] = lambda width, padding: 0.0,
        *,
        precision: str = "fp32",
        max_tokens: int = 2048,
        longest: int = 256,
    ) -> None:
        self.wrong, self.precision, self.max_tokens, self.longest = wrong, precision, max_tokens, longest
        self.row_by_row, self.calls = "", 0

    def sample(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        lengths = [min(self.longest, 6 + len(passage.split())) for _, passage in pairs]
        return [Row(np.arange(n, dtype=np.int32), np.zeros(n, np.int8)) for n in lengths]

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        self.calls += 1
        width = max(len(row.ids) for row in rows)
        assert len(rows) * width <= self.max_tokens
        return np.array([2.0 + self.wrong(width, width - len(row.ids)) for row in rows], np.float32)

    def run_row_by_row(self, why: str) -> None:
        self.row_by_row, self.max_tokens = why, 1


def fails(width: int, padding: int) -> float:
    raise ValueError("no padding token is defined")


def test_a_sound_scorer_stays_as_it_is() -> None:
    toy = Toy()
    assert isinstance(toy, RunsBatches)
    assert difference(toy, model="toy") == ""
    assert toy.calls <= 16


@pytest.mark.parametrize("width", [*WIDTHS, 256])
def test_one_wrong_width_is_found(width: int) -> None:
    wrong = Toy(lambda w, padding: 0.5 * (w == width and padding > 0))
    assert f"beside a row of {width} tokens" in difference(wrong, model="toy")


@pytest.mark.parametrize("width", WIDTHS[:-1])
def test_a_row_that_is_wrong_where_it_needs_no_padding_is_found(width: int) -> None:
    """As OpenVINO's int8 was for rows as wide as an attention head."""
    wrong = Toy(lambda w, padding: 0.5 * (w == width and padding == 0))
    assert f"a row of {width} tokens scores otherwise" in difference(wrong, model="toy")


@given(
    precision=st.sampled_from(sorted(TOLERANCES)),
    slope=st.floats(0.01, 10) | st.floats(-10, -0.01),
    tokens=st.integers(40, 600),
    longest=st.integers(20, 600),
)
def test_padding_that_counts_is_found_and_rounding_is_not(
    precision: str, slope: float, tokens: int, longest: int
) -> None:
    absolute, _ = TOLERANCES[precision]
    rounding = Toy(
        lambda w, p: absolute / 2 * (p % 2), precision=precision, max_tokens=tokens, longest=longest
    )
    assert difference(rounding, model="toy") == ""
    wrong = Toy(lambda w, p: slope * p, precision=precision, max_tokens=tokens, longest=longest)
    assert difference(wrong, model="toy")


@given(short=st.integers(6, 40), longest=st.integers(45, 300))
def test_padding_that_counts_is_found_where_an_engine_rounds_widths_up(short: int, longest: int) -> None:
    """A token beside the row's last one changes it, whether there is one or many: as in MobileBERT, on OpenVINO."""

    class Rounding(Toy):
        def sample(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
            return [
                super().sample(pairs[:1])[0]._replace(**cut(short)),
                *super().sample(pairs[1:]),
            ]

        def run(self, rows: Sequence[Row]) -> np.ndarray:
            width = -(-max(len(row.ids) for row in rows) // 4) * 4
            return np.array([float(width > len(row.ids)) for row in rows], np.float32)

    def cut(n: int) -> dict[str, np.ndarray]:
        return {"ids": np.arange(n, dtype=np.int32), "types": np.zeros(n, np.int8)}

    assert difference(Rounding(longest=longest), model="toy")


def test_a_nan_in_a_batch_is_found() -> None:
    assert difference(Toy(lambda w, padding: np.nan if padding else 0.0), model="toy")
    assert not difference(Toy(lambda w, padding: np.nan), model="toy")  # not a matter of the batch


def test_batches_that_fail() -> None:
    assert "no padding token" in difference(Toy(lambda w, p: fails(w, p) if p else 0.0), model="toy")
    with pytest.raises(ModelError, match="toy fails on a short pair .*no padding token"):
        difference(Toy(fails), model="toy")

    def too_large(width: int, padding: int) -> float:
        if padding:
            raise OutOfMemory("no memory")
        return 0.0

    assert difference(Toy(too_large), model="toy") == ""  # it is halved while scoring


def test_rows_that_run_alone_anyway_are_not_run() -> None:
    toy = Toy(fails, max_tokens=1)
    check_batches(toy, model="toy")
    check_batches(object(), model="a scorer of two members")
    assert toy.calls == 0


# Real models


def test_an_export_that_lost_its_mask_runs_row_by_row(
    make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_model(masked=False)
    with caplog.at_level(logging.WARNING):
        scorer = load_scorer(folder)
        load_scorer(folder)
    assert [r.message for r in caplog.records if str(folder) in r.message] == [
        f"{folder} runs row by row, which is slower: {why_row_by_row(scorer)}"
    ]
    together = scorer.score(PAIRS)
    np.testing.assert_array_equal(together, np.concatenate([scorer.score([pair]) for pair in PAIRS]))
    sound = load_scorer(make_model("sound"))
    assert why_row_by_row(sound) == ""
    np.testing.assert_allclose(together, sound.score(PAIRS), atol=1e-5)


def test_scores_of_wrong_batches_are_not_reused(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(masked=False)
    now = load_scorer(folder).fingerprint
    monkeypatch.setattr(batch_check, "check_batches", lambda scorer, model: None)
    assert load_scorer(folder).fingerprint != now


def test_openvino_pads_no_row_that_must_run_alone(make_model: Callable[..., Path]) -> None:
    pytest.importorskip("openvino")
    scorer = load_scorer(make_model(masked=False), backend="openvino")
    assert why_row_by_row(scorer)
    sound = load_scorer(make_model("sound"))
    np.testing.assert_allclose(scorer.score(PAIRS), sound.score(PAIRS), atol=1e-4)


def test_a_width_that_openvino_computes_wrong_is_found(
    make_transformer: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("rerank_core.scoring.backends.openvino", exc_type=ImportError)
    from rerank_core.scoring.backends.openvino_int8 import quantise

    if "amx_int8" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("needs a processor with AMX")
    folder = make_transformer(hidden_size=64, num_attention_heads=2)
    quantise(folder, [("who wrote dune", "dune was written by frank herbert " * n) for n in range(1, 9)])
    assert why_row_by_row(load_scorer(folder, backend="openvino", precision="int8")) == ""
    monkeypatch.setattr(openvino, "head_sizes", lambda model: frozenset())
    assert "32 tokens" in why_row_by_row(load_scorer(folder, backend="openvino", precision="int8"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("backend", ["torch", "bi_encoder"])
def test_sound_models_of_every_precision(tmp_path: Path, backend: str, precision: str) -> None:
    pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
    from tests.support.tiny_models import KINDS, write_cross_encoder

    task = "ForSequenceClassification" if backend == "torch" else "Model"
    for kind in KINDS:
        folder = write_cross_encoder(tmp_path / kind, kind, task=task)
        scorer = load_scorer(folder, backend=backend, precision=precision, max_length=60)
        assert (kind, why_row_by_row(scorer)) == (kind, "")


def test_a_bi_encoder_that_counts_padding_embeds_every_text_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
    from rerank_core.scoring.backends import bi_encoder_torch
    from tests.support.tiny_models import write_cross_encoder

    folder = write_cross_encoder(tmp_path / "bert", task="Model")
    expected = load_scorer(folder, backend="bi_encoder", max_length=60).score(PAIRS)
    sound = bi_encoder_torch.pool
    monkeypatch.setattr(bi_encoder_torch, "pool", lambda v, mask, how: sound(v, mask * 0 + 1, how))
    scorer = load_scorer(folder, backend="bi_encoder", max_length=60)
    assert why_row_by_row(scorer)
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-5)
