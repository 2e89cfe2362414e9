"""The base model of a training."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from benchmarks.conformance import SETTINGS
from rerank_core.errors import ModelError
from rerank_core.features.render import special_tokens
from rerank_core.scoring.backends.torch import TorchScorer
from rerank_core.scoring.load import load_scorer
from rerank_core.training.base_model import load_cross_encoder, save_model
from rerank_core.training.losses import PairCrossEncoder
from rerank_core.training.vocabulary import extend_vocabulary
from tests.support.tiny_models import KINDS, write_cross_encoder

# Words, tags, and what spells the special token of some tokenizer.
PIECES = [
    *("who ", "dune ", " ", "é", "x"),
    *("[HOP:1] ", "[ROLE:Definition] ", "[ENT:dune] "),
    *("[SEP]", "[CLS] ", "[PAD]", "[UNK]", "[MASK]", "<s>", "</s>", "<pad>", "<unk>", " </s> ", "＜/s＞"),
]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_base_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load model = .*nothing"):
        load_cross_encoder(tmp_path / "nothing", max_length=32)
    folder = write_cross_encoder(tmp_path / "bert")
    with pytest.raises(ModelError, match="max_length is 65, but .* set max_length = 64 or lower"):
        load_cross_encoder(folder, max_length=65)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="model.safetensors of an encoder"):
        load_cross_encoder(folder, max_length=32)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert"


PAIRS = [("who wrote dune", "frank herbert"), ("the novel", "sand moves the sand"), ("who", "")]
NAMES = [None, ("irrelevant", "relevant"), ("relevant", "irrelevant")]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_reranker_of_two_logits_scores_as_before_it_is_trained(
    tmp_path: Path, kind: str, names: tuple[str, str] | None
) -> None:
    folder = write_cross_encoder(tmp_path / "base", kind, labels=2)
    if names:
        config = json.loads((folder / "config.json").read_text())
        config |= {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
        (folder / "config.json").write_text(json.dumps(config))
    expected = load_scorer(folder, backend="torch", max_length=40).score(PAIRS)
    model = load_cross_encoder(folder, max_length=40)
    assert (model.num_labels, model.config.id2label) == (1, {0: "LABEL_0"})
    save_model(model, tmp_path / "start")
    again = load_cross_encoder(tmp_path / "start", max_length=40)
    for one in (model, again):
        logits = one.predict(PAIRS, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    night = load_scorer(tmp_path / "start", backend="torch", max_length=40)
    np.testing.assert_allclose(night.score(PAIRS), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.05


def test_a_classifier_of_more_logits_is_refused_and_an_encoder_gets_a_head(tmp_path: Path) -> None:
    three = write_cross_encoder(tmp_path / "three", labels=3)
    with pytest.raises(ModelError, match=r"has 3 logits \(id2label of its config.json\)"):
        load_cross_encoder(three, max_length=32)
    encoder = write_cross_encoder(tmp_path / "encoder", task="Model", labels=3)
    assert load_cross_encoder(encoder, max_length=32).num_labels == 1


@pytest.mark.parametrize("kind", KINDS)
@given(
    pairs=st.lists(
        st.tuples(*[st.lists(st.sampled_from(PIECES), max_size=12).map("".join)] * 2), min_size=1, max_size=4
    )
)
@settings(max_examples=40)
def test_a_training_reads_a_text_as_a_night_does(kind: str, pairs: list[tuple[str, str]]) -> None:
    model, night = opened(kind)
    features = model.preprocess(pairs)
    for number, row in enumerate(night.sample(pairs)):
        real = features["attention_mask"][number].bool()
        assert features["input_ids"][number][real].tolist() == row.ids.tolist()
        if "token_type_ids" in features:
            assert features["token_type_ids"][number][real].tolist() == row.types.tolist()
    nested = model.preprocess([("", pair) for pair in pairs])  # as listwise losses give them
    assert torch.equal(nested["input_ids"], features["input_ids"])
    logits = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    np.testing.assert_allclose(logits, night.score(pairs), atol=1e-5)


@functools.cache
def opened(kind: str) -> tuple[PairCrossEncoder, TorchScorer]:
    """A model as a training opens it, with the tags in its vocabulary, and as a night does."""
    with tempfile.TemporaryDirectory() as work:
        base = load_cross_encoder(write_cross_encoder(Path(work) / "base", kind), max_length=40)
        extend_vocabulary(base, special_tokens())
        save_model(base, Path(work) / "start")
        night = TorchScorer(Path(work) / "start", max_length=40)
        return load_cross_encoder(Path(work) / "start", max_length=40).eval(), night


def inputs_without_a_mask(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids"])


def padding_that_the_model_lacks(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", pad_token="[BEYOND]")
    edit(folder / "config.json", pad_token_id=None)


@pytest.mark.parametrize(
    "change",
    [
        *(SETTINGS[name] for name in ("prompt", "chat template", "truncation on the left", "casing")),
        SETTINGS["fewer inputs"],
        inputs_without_a_mask,
        padding_that_the_model_lacks,
    ],
)
def test_a_training_reads_what_the_bases_folder_says(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = write_cross_encoder(tmp_path / "base")
    change(folder)
    pairs = [*PAIRS, ("Who WROTE", "the sand moves " * 30)]
    expected = load_scorer(folder, backend="torch", max_length=40).score(pairs)
    save_model(load_cross_encoder(folder, max_length=40), tmp_path / "start")
    model = load_cross_encoder(tmp_path / "start", max_length=40)
    logits = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    again = load_scorer(tmp_path / "start", backend="torch", max_length=40)
    np.testing.assert_allclose(again.score(pairs), expected, atol=1e-5)
