"""Cross-encoders on PyTorch: sentence-transformers' logits, kind by kind, and every refusal names its remedy."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
sentence_transformers = pytest.importorskip("sentence_transformers")
transformers = pytest.importorskip("transformers")

from rerank_core.errors import (
    ModelError,
    OutOfMemory,
)
from rerank_core.scoring.backends.torch import TorchScorer
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.protocol import MeasuresOverflow, reads_tags
from tests.support.tiny_models import KINDS, write_cross_encoder

QUERY = "who wrote the novel dune"
PAIRS = [
    (QUERY, "dune was written by frank herbert"),
    (QUERY, "sand moves"),
    (QUERY, ""),
    ("", ""),
    ("sand", "the sand moves by the dune, " * 9),
    (QUERY * 5, "dune was written by frank herbert " * 5),
    (QUERY, "the novel dune"),
    ("who", "é ü 砂"),
]
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("models") / "bert")


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_parity_with_sentence_transformers(tmp_path: Path, kind: str, labels: int) -> None:
    folder = write_cross_encoder(tmp_path / kind, kind, labels=labels)
    peer = sentence_transformers.CrossEncoder(
        str(folder), max_length=40, activation_fn=torch.nn.Identity(), device="cpu"
    )
    expected = peer.predict(PAIRS)
    if labels == 2:
        expected = expected[:, 1] - expected[:, 0]
    for unpadded in (True, False):
        logits = TorchScorer(folder, max_length=40, max_tokens=120, unpadded=unpadded).score(PAIRS)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert expected.std() > 0.05  # weights that tell the pairs apart


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_scores_as_it_does_in_a_batch(tmp_path: Path, kind: str) -> None:
    scorer = TorchScorer(write_cross_encoder(tmp_path / kind, kind), max_length=40)
    together = scorer.score(PAIRS)
    alone = np.concatenate([scorer.score([pair]) for pair in PAIRS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(scorer.score(PAIRS[::-1]), together[::-1], atol=1e-5)


def test_the_attention_that_a_kind_gets(tmp_path: Path) -> None:
    deberta = TorchScorer(write_cross_encoder(tmp_path / "deberta", "deberta-v2"), max_length=40)
    assert (deberta.attention, deberta._model.config._attn_implementation) == ("padded", "eager")
    bert = write_cross_encoder(tmp_path / "bert")
    padded = TorchScorer(bert, max_length=40, unpadded=False)
    assert (padded.attention, padded._model.config._attn_implementation) == ("padded", "sdpa")
    assert TorchScorer(bert, max_length=40).attention == "unpadded"


def test_no_pairs_and_overflow(bert: Path) -> None:
    scorer = TorchScorer(bert, max_length=12)
    assert scorer.score([]).shape == (0,)
    assert isinstance(scorer, MeasuresOverflow)
    assert scorer.overflow([("who", "dune"), ("who wrote", "dune " * 10)]).tolist() == [0, 3]


def test_threads_may_share_a_scorer(bert: Path) -> None:
    scorer = TorchScorer(bert, max_length=40)
    expected = scorer.score(PAIRS)
    with ThreadPoolExecutor(4) as pool:
        for logits in pool.map(lambda _: scorer.score(PAIRS), range(8)):
            np.testing.assert_array_equal(logits, expected)


def test_a_text_that_no_tokenizer_takes_costs_its_pair_alone(bert: Path) -> None:
    outcome = score_checked(TorchScorer(bert, max_length=40), [*PAIRS, ("who", "\ud800")])
    assert set(outcome.errors) == {len(PAIRS)}


def test_compiled(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a backend that builds nothing: what is ours is the choice of the path."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: real(model, backend="eager", **options))
    scorer = TorchScorer(bert, max_length=40, compile=True)
    assert scorer.attention == "padded"
    plain = TorchScorer(bert, max_length=40)
    np.testing.assert_allclose(scorer.score(PAIRS), plain.score(PAIRS), atol=1e-5)
    assert scorer.fingerprint != plain.fingerprint


# Precision


@pytest.mark.parametrize("kind", ["bert", "modernbert", "roberta", "deberta-v2"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_and_makes_no_ties(tmp_path: Path, kind: str, precision: str) -> None:
    folder = write_cross_encoder(tmp_path / kind, kind)
    full = TorchScorer(folder, max_length=40).score(PAIRS)
    half = TorchScorer(folder, max_length=40, precision=precision).score(PAIRS)
    assert half.dtype == np.float32
    assert np.abs(half - full).max() < {"bf16": 0.15, "fp16": 0.02}[precision]
    rounded = torch.from_numpy(half).to({"bf16": torch.bfloat16, "fp16": torch.float16}[precision]).float()
    assert (rounded.numpy() != half).mean() > 0.5  # the logit itself was not rounded


@gpu
@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu(tmp_path: Path, kind: str, precision: str) -> None:
    folder = write_cross_encoder(tmp_path / kind, kind)
    scorer = TorchScorer(folder, max_length=40, device="cuda", precision=precision)
    assert (scorer.device, scorer.chunk, scorer.max_tokens) == ("cuda", 16_384, 65_536)
    half = precision != "fp32"
    assert scorer.attention == ("unpadded" if half and kind != "deberta-v2" else "padded")
    expected = TorchScorer(folder, max_length=40).score(PAIRS)
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=0.15 if half else 1e-3)


# Memory


class Limited(torch.nn.Module):
    """A model on a device that holds so many tokens."""

    def __init__(self, model: Any, limit: int, error: RuntimeError) -> None:
        super().__init__()
        self.model, self.limit, self.error = model, limit, error
        self.largest = 0

    def forward(self, **inputs: Any) -> Any:
        if inputs["input_ids"].numel() > self.limit:
            raise self.error
        self.largest = max(self.largest, inputs["input_ids"].numel())
        return self.model(**inputs)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_batch_beyond_memory_is_halved(bert: Path, error: RuntimeError) -> None:
    scorer = TorchScorer(bert, max_length=40, max_tokens=400, unpadded=False)
    expected = scorer.score(PAIRS)
    scorer._model = Limited(scorer._model, 100, error)
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-5)
    assert (scorer.halvings, scorer.max_tokens) == (2, 80)
    scorer.score(PAIRS)
    assert scorer.halvings == 2  # the lower budget stays
    assert scorer._model.largest <= 100


def test_one_row_beyond_memory_is_an_error(bert: Path) -> None:
    scorer = TorchScorer(bert, max_length=40, unpadded=False)
    scorer._model = Limited(scorer._model, 8, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        scorer.score(PAIRS)


def test_other_errors_of_a_model_stay_what_they_are(bert: Path) -> None:
    scorer = TorchScorer(bert, max_length=40, unpadded=False)
    scorer._model = Limited(scorer._model, 8, RuntimeError("mat1 and mat2"))
    with pytest.raises(RuntimeError, match="mat1 and mat2") as raised:
        scorer.score(PAIRS)
    assert not isinstance(raised.value, OutOfMemory)


# Identity


def test_the_fingerprint_names_weights_settings_and_tokenizer(bert: Path, tmp_path: Path) -> None:
    same = shutil.copytree(bert, tmp_path / "same")
    (same / "README.md").write_text("changed")
    first = TorchScorer(bert, max_length=40)
    assert TorchScorer(same, max_length=40, max_tokens=99, threads=1).fingerprint == first.fingerprint
    assert len(bytes.fromhex(first.fingerprint)) == 16
    text = (same / "tokenizer.json").read_text()
    (same / "tokenizer.json").write_text(text + "\n")
    others = [
        TorchScorer(same, max_length=40),
        TorchScorer(bert, max_length=39),
        TorchScorer(bert, max_length=40, precision="bf16"),
        TorchScorer(bert, max_length=40, unpadded=False),
        TorchScorer(write_cross_encoder(tmp_path / "other", seed=1), max_length=40),
    ]
    assert len({first.fingerprint, *(scorer.fingerprint for scorer in others)}) == 6


def test_weights_in_shards(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bert)
    model.save_pretrained(folder, max_shard_size="20KB")
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    scorer = TorchScorer(folder, max_length=40)
    np.testing.assert_allclose(scorer.score(PAIRS), TorchScorer(bert, max_length=40).score(PAIRS), atol=1e-6)
    raw = bytearray(shards[-1].read_bytes())
    raw[-1] ^= 1
    shards[-1].write_bytes(raw)
    assert TorchScorer(folder, max_length=40).fingerprint != scorer.fingerprint


def test_a_folder_says_whether_it_reads_tags(bert: Path, tmp_path: Path) -> None:
    from rerank_core.config.night import Tagging

    tagged = shutil.copytree(bert, tmp_path / "tagged")
    (tagged / "nightrank.json").write_text('{"reads_tags": true}')
    assert reads_tags(TorchScorer(tagged, max_length=40), Tagging())
    assert not reads_tags(TorchScorer(bert, max_length=40), Tagging())


# Models and machines that cannot be used


def test_more_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"shape \[2, 3\], not \[rows, 1\] or \[rows, 2\]"):
        TorchScorer(write_cross_encoder(tmp_path / "three", labels=3), max_length=40)


def test_max_length_beyond_the_models_positions(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="takes at most 64 tokens"):
        TorchScorer(bert, max_length=65)
    assert len(TorchScorer(bert, max_length=64).score(PAIRS)) == len(PAIRS)
    roberta = write_cross_encoder(tmp_path / "roberta", "roberta")
    with pytest.raises(ModelError, match="takes at most 64 tokens"):  # of 66 positions
        TorchScorer(roberta, max_length=65)
    assert len(TorchScorer(roberta, max_length=64).score(PAIRS)) == len(PAIRS)


@pytest.mark.parametrize(
    "options",
    [{"max_length": 4}, {"max_tokens": -1}, {"threads": -1}, {"device": "tpu"}, {"precision": "int8"}],
)
def test_senseless_settings(bert: Path, options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TorchScorer(bert, **options)
