"""A bi-encoder in a training: the logits of its folder, trained, written, and restored from int8."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from rerank_core.errors import ModelError
from rerank_core.scoring.load import load_scorer
from rerank_core.training.base_model import load_cross_encoder
from rerank_core.training.bi_encoder import PairBiEncoder
from rerank_core.training.metrics_log import MetricsLog
from rerank_core.training.package import ONNX_INT8, write_package
from tests.support.tiny_models import write_bi_encoder
from tests.support.tiny_training import train, training_config, two_stages

PAIRS = [
    ("who wrote dune", "frank herbert wrote the novel"),
    ("who wrote dune", "sand moves"),
    ("who", "sand moves"),
    ("the novel was", ""),
    ("the novel " * 20, "dune by who " * 20),
]
LENGTH = 32


def logits(model: Any) -> np.ndarray:
    found = model.predict(PAIRS, activation_fn=torch.nn.Identity(), show_progress_bar=False, batch_size=3)
    return np.asarray(found).reshape(-1)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "modernbert"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_its_logits_are_those_of_the_folder(tmp_path: Path, kind: str, pooling: str) -> None:
    folder = write_bi_encoder(tmp_path / "model", kind, pooling=pooling)
    model = load_cross_encoder(folder, max_length=LENGTH)
    assert isinstance(model, PairBiEncoder)
    expected = load_scorer(folder, backend="torch", max_length=LENGTH).score(PAIRS)
    np.testing.assert_allclose(logits(model), expected, atol=1e-4)


@pytest.mark.parametrize("lower", [False, True])
def test_it_is_written_as_it_was_read(tmp_path: Path, lower: bool) -> None:
    folder = write_bi_encoder(tmp_path / "model", "roberta", lower=lower)  # of a tokenizer that knows case
    model = load_cross_encoder(folder, max_length=LENGTH)
    model.save_pretrained(str(tmp_path / "again"))
    upper = [("WHO", "SAND moves"), *PAIRS]
    first, again = (
        load_scorer(path, backend="torch", max_length=LENGTH).score(upper)
        for path in (folder, tmp_path / "again")
    )
    np.testing.assert_array_equal(first, again)
    loaded = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    loaded.max_seq_length = LENGTH
    if not lower:  # sentence-transformers reads that of older folders elsewhere
        queries, passages = (
            encode([pair[side] for pair in PAIRS])
            for side, encode in enumerate((loaded.encode_query, loaded.encode_document))
        )
        np.testing.assert_allclose((queries * passages).sum(1) * 20 - 8, again[1:], atol=1e-4)


def test_each_text_of_a_batch_is_read_once(tmp_path: Path) -> None:
    model = load_cross_encoder(write_bi_encoder(tmp_path / "model"), max_length=LENGTH)
    features = model.preprocess([("", pair) for pair in PAIRS[:3]])
    assert features["input_ids"].shape[0] == 4
    assert features["query_of"].tolist() == [0, 0, 3]
    assert features["passage_of"].tolist() == [1, 2, 2]
    assert model.preprocess([]) == {}
    assert model.encoder() is model.encoder()  # made once, not for every batch


def test_a_training_from_it_lowers_the_loss_and_is_written_as_a_bi_encoder(tmp_path: Path) -> None:
    base = write_bi_encoder(tmp_path / "base")
    settings = two_stages(tmp_path)
    trained = train(tmp_path, settings)
    losses = [line["loss"] for line in MetricsLog(tmp_path / "figures.jsonl").of("loss")]
    assert losses[-1] < losses[0]
    assert not np.allclose(
        load_file(trained / "model.safetensors")["encoder.layer.0.output.dense.weight"],
        load_file(base / "model.safetensors")["encoder.layer.0.output.dense.weight"],
    )
    written = tmp_path / "written"
    check = write_package(trained, written, pairs=PAIRS, reads_tags=True, max_length=LENGTH)
    assert check.fp32_largest < 1e-3
    scorer = load_scorer(written, max_length=LENGTH)
    assert scorer.reads_tags
    np.testing.assert_allclose(
        scorer.score(PAIRS), logits(load_cross_encoder(trained, max_length=LENGTH)), atol=1e-3
    )
    assert json.loads((written / "nightrank.json").read_text())["logit"]["scale"] != 20.0


def test_a_training_with_adapters_leaves_an_ordinary_bi_encoder(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    write_bi_encoder(tmp_path / "base")
    settings = training_config(tmp_path, {"name": "one", "epochs": 1, "lr": 1e-3}, lora={"r": 2})
    trained = train(tmp_path, settings)
    stage = MetricsLog(tmp_path / "figures.jsonl").of("stage")[0]
    assert stage["parameters_trained"] < 0.2 * stage["parameters"]
    assert (trained / "modules.json").is_file()
    assert load_scorer(trained, backend="torch", max_length=LENGTH).score(PAIRS).shape == (len(PAIRS),)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "modernbert"])
def test_int8_scores_alike_in_every_batch_and_weights_come_back_from_it(tmp_path: Path, kind: str) -> None:
    folder = write_bi_encoder(tmp_path / "base", kind)
    written = tmp_path / "written"
    check = write_package(folder, written, pairs=PAIRS, reads_tags=False, max_length=LENGTH)
    assert 0 < check.int8_mean < 0.3
    small = load_scorer(written, onnx_file=ONNX_INT8, max_length=LENGTH)
    assert (small.precision, small.row_by_row) == ("int8", "")  # type: ignore[attr-defined]
    alone = [load_scorer(written, onnx_file=ONNX_INT8, max_length=LENGTH).score([pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(small.score(PAIRS), alone, atol=1e-4)

    alike = logits(load_cross_encoder(written, max_length=LENGTH))
    for path in ("model.safetensors", "onnx/model.onnx"):
        (written / path).unlink()
    restored = logits(load_cross_encoder(written, max_length=LENGTH))
    np.testing.assert_allclose(restored, alike, atol=0.5)
    assert np.abs(restored - alike).max() > 0


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = write_bi_encoder(tmp_path / "base")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no ONNX file in"):
        load_cross_encoder(folder, max_length=LENGTH)
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "onnx").mkdir()
    (other / "onnx" / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"model.onnx cannot be read .*; copy it again"):
        load_cross_encoder(other, max_length=LENGTH)
    full = write_bi_encoder(tmp_path / "full")
    written = tmp_path / "written"
    write_package(full, written, pairs=PAIRS, reads_tags=False, max_length=LENGTH)
    for path in ("model.safetensors", "onnx/model_int8.onnx"):
        (written / path).unlink()
    with pytest.raises(ModelError, match=r"no \*.safetensors, and .*model.onnx no int8 weights"):
        load_cross_encoder(written, max_length=LENGTH)


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_bi_encoder(tmp_path / "base")
    load_cross_encoder(folder, max_length=LENGTH)
    assert "LOAD REPORT" not in "".join(capfd.readouterr())
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack encoder.layer.1.output.dense.weight"):
        load_cross_encoder(folder, max_length=LENGTH)
