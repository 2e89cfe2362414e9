"""Rows laid end to end: the padded path's logits, whatever the rows' lengths and order."""

from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
transformers = pytest.importorskip("transformers")

from rerank_core.inference.encoding import Row
from rerank_core.scoring.backends.torch import TorchScorer
from rerank_core.scoring.backends.torch_varlen import Layout, attend, varlen_kernel
from tests.support.tiny_models import write_cross_encoder

UNPADDED = ["bert", "electra", "roberta", "xlm-roberta", "modernbert"]
Scorers = dict[str, tuple[TorchScorer, TorchScorer]]


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> Scorers:
    """Each kind without padding and with it."""
    root = tmp_path_factory.mktemp("models")
    made = {}
    for kind in UNPADDED:
        folder = write_cross_encoder(root / kind, kind)
        pair = [TorchScorer(folder, max_length=60, unpadded=unpadded) for unpadded in (True, False)]
        assert [scorer.attention for scorer in pair] == ["unpadded", "padded"]
        made[kind] = (pair[0], pair[1])
    return made


def rows_of(lengths: list[int], *, seed: int = 0) -> list[Row]:
    """Random rows; ids from 5 up are in every fixture's vocabulary, and none is special."""
    random = np.random.default_rng(seed)
    types = [np.zeros(n, np.int8) for n in lengths]
    return [Row(random.integers(5, 30, n).astype(np.int32), t) for n, t in zip(lengths, types, strict=True)]


@pytest.mark.parametrize("kind", UNPADDED)
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12), seed=st.integers(0, 9))
def test_the_logits_are_those_of_the_padded_path(
    scorers: Scorers, kind: str, lengths: list[int], seed: int
) -> None:
    unpadded, padded = scorers[kind]
    rows = rows_of(lengths, seed=seed)
    np.testing.assert_allclose(unpadded.run(rows), padded.run(rows), atol=1e-4)


@pytest.mark.parametrize("kind", UNPADDED)
def test_a_row_knows_nothing_of_its_neighbours(scorers: Scorers, kind: str) -> None:
    unpadded, _ = scorers[kind]
    rows = rows_of([40, 7, 40, 7, 7, 1, 59])
    together = unpadded.run(rows)
    np.testing.assert_allclose(together, np.concatenate([unpadded.run([row]) for row in rows]), atol=1e-5)
    np.testing.assert_allclose(unpadded.run(rows[::-1]), together[::-1], atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernberts_poolings_and_window(tmp_path: Path, pooling: str) -> None:
    folder = write_cross_encoder(tmp_path / "model", "modernbert", classifier_pooling=pooling)
    wide = write_cross_encoder(
        tmp_path / "wide", "modernbert", classifier_pooling=pooling, local_attention=200
    )
    rows = rows_of([3, 50, 9, 50, 21])
    unpadded = TorchScorer(folder, max_length=60)
    padded = TorchScorer(folder, max_length=60, unpadded=False)
    logits = unpadded.run(rows)
    np.testing.assert_allclose(logits, padded.run(rows), atol=1e-4)
    # The same weights without a window: rows within it are the same, longer ones are not.
    seen = np.abs(TorchScorer(wide, max_length=60).run(rows) - logits)
    assert seen[0] < 1e-5
    assert seen[1] > 1e-3


def test_a_padding_token_inside_a_row_takes_no_position(scorers: Scorers) -> None:
    """RoBERTa's own rule; such a row comes of a tokenizer whose padding is a word too."""
    unpadded, _ = scorers["roberta"]
    ids = np.array([9, 8, 1, 7, 6], np.int32)
    positions = unpadded._unpadded._positions(ids)  # type: ignore[union-attr]
    embeddings = unpadded._model.roberta.embeddings
    expected = embeddings.create_position_ids_from_input_ids(torch.from_numpy(ids)[None].long(), 1)
    assert positions.tolist() == expected[0].tolist()


def test_token_types_reach_the_model(scorers: Scorers) -> None:
    for scorer in scorers["bert"]:
        (row,) = rows_of([12])
        typed = Row(row.ids, np.arange(12).astype(np.int8) // 6)
        assert abs(scorer.run([row])[0] - scorer.run([typed])[0]) > 1e-3


def test_a_decoder_runs_padded(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "decoder", "bert", is_decoder=True)
    assert TorchScorer(folder, max_length=60).attention == "padded"


def test_half_precision(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "model", "modernbert", classifier_pooling="mean")
    rows = rows_of([3, 50, 9, 50, 21])
    full, half = (TorchScorer(folder, max_length=60, precision=p).run(rows) for p in ("fp32", "bf16"))
    np.testing.assert_allclose(half, full, atol=0.15)


def kernel_by_hand(
    query: Any,
    key: Any,
    value: Any,
    ends: Any,
    other: Any,
    longest: int,
    *_: int,
    scale: float,
    window_size: Any,
) -> Any:
    """What torch documents of its kernel: [tokens, heads, size], and a window that holds its ends."""
    assert (ends.dtype, longest) == (torch.int32, int(ends.diff().max()))
    assert torch.equal(ends, other)
    assert query.is_contiguous()
    left, right = window_size
    parts = []
    for start, end in pairwise(ends):
        scores = torch.einsum("ihd,jhd->hij", query[start:end], key[start:end]) * scale
        apart = torch.arange(end - start)[None] - torch.arange(end - start)[:, None]
        if left >= 0:
            scores = scores.masked_fill((apart < -left) | (apart > right), -torch.inf)
        parts.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), value[start:end]))
    return torch.cat(parts)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_what_a_gpus_kernel_is_asked(scorers: Scorers, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself runs on a GPU only: see test_on_a_gpu."""
    unpadded, padded = scorers[kind]
    rows = rows_of([3, 50, 9, 50, 21])
    monkeypatch.setattr(unpadded._unpadded, "_kernel", kernel_by_hand)
    np.testing.assert_allclose(unpadded.run(rows), padded.run(rows), atol=1e-4)


def test_this_torch_has_the_kernel() -> None:
    kernel = varlen_kernel()
    if kernel is None:
        pytest.skip("torch before 2.11 or so has none")
    inspect.signature(kernel).bind(1, 2, 3, 4, 5, 6, 7, scale=0.5, window_size=(3, 3))


@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize("lengths", [[5], [5, 5, 5], [9, 2, 2, 9, 1], [1, 1, 1]])
def test_attention_by_hand(lengths: list[int], window: int | None) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, sum(lengths), 4) for _ in range(3))
    layout = Layout(lengths, torch.tensor(np.cumsum([0, *lengths])))
    got, weights = attend(None, query, key, value, None, scaling=0.3, layout=layout, sliding_window=window)
    assert weights is None
    assert got.shape == (1, sum(lengths), 2, 4)
    start = 0
    for length in lengths:
        q, k, v = (part[0, :, start : start + length] for part in (query, key, value))
        scores = q @ k.transpose(1, 2) * 0.3
        apart = (torch.arange(length)[:, None] - torch.arange(length)).abs()
        if window is not None:
            scores = scores.masked_fill(apart >= window, -torch.inf)
        expected: Any = (scores.softmax(-1) @ v).transpose(0, 1)
        torch.testing.assert_close(got[0, start : start + length], expected, atol=1e-5, rtol=1e-5)
        start += length
