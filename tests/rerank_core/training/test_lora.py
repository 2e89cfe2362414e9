"""Adapters learn beside frozen weights, survive a kill, and leave an ordinary model behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder

from rerank_core.config.training import Lora
from rerank_core.errors import ModelError
from rerank_core.features.render import special_tokens
from rerank_core.training.base_model import load_cross_encoder
from rerank_core.training.lora import FILE, Weights
from rerank_core.training.metrics_log import MetricsLog
from rerank_core.training.vocabulary import extend_vocabulary
from tests.support.tiny_models import write_cross_encoder
from tests.support.tiny_training import train, two_stages

pytest.importorskip("peft", reason="needs peft: pip install 'nightrank[train]'")

ROOT = Path(__file__).parents[3]
LORA = {"r": 4, "alpha": 16, "dropout": 0.1}
PAIRS = [("who wrote dune", "dune was written by frank herbert"), ("[HOP:0] who", "sand moves")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Both stages with adapters, without a break: their folder, and the model's."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, two_stages(folder, lora=LORA))


def attached(folder: Path, kind: str = "bert", **lora: Any) -> Weights:
    model = load_cross_encoder(write_cross_encoder(folder / kind, kind), max_length=32)
    extend_vocabulary(model, special_tokens())
    return Weights(model, Lora(r=2, **lora), tags=special_tokens(), seed=1)


def logits(weights: Weights) -> torch.Tensor:
    return torch.from_numpy(weights.model.predict(PAIRS, activation_fn=torch.nn.Identity()))


def disturb(weights: Weights) -> None:
    """Change all that learns, as a training would."""
    torch.manual_seed(0)
    with torch.no_grad():
        for one in weights.model.parameters():
            if one.requires_grad:
                one.add_(0.1 * torch.randn_like(one))


def test_a_killed_training_ends_with_the_same_weights(whole: tuple[Path, Path], tmp_path: Path) -> None:
    folder, model = whole
    shutil.copytree(folder / "base", tmp_path / "base")
    fields = json.dumps({"lora": LORA})

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.tiny_training",
            str(tmp_path),
            fields,
            "pairs",
            "8",
            "lists",
            "5",
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "work" / "2-lists" / "checkpoint-4"
    assert (checkpoint / FILE).exists()
    assert not (checkpoint / "model.safetensors").exists()
    resumed = train(tmp_path, two_stages(tmp_path, lora=LORA))

    assert (resumed / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert MetricsLog(tmp_path / "figures.jsonl").of("loss") == MetricsLog(folder / "figures.jsonl").of(
        "loss"
    )


def test_a_model_without_traces_of_adapters_is_left(whole: tuple[Path, Path]) -> None:
    folder, model = whole
    before, after = (load_file(place / "model.safetensors") for place in (folder / "work" / "start", model))
    assert before.keys() == after.keys()
    assert not (model / "adapter_config.json").exists()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    # Attention's query and value, the head with its pooler, and of the embeddings the rows of tags.
    assert {name.partition("self.")[2] or name for name in changed} == {
        "query.weight",
        "value.weight",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
        "bert.embeddings.word_embeddings.weight",
    }
    name = "bert.embeddings.word_embeddings.weight"
    rows = (before[name] != after[name]).any(1).nonzero().flatten().tolist()
    tags = CrossEncoder(str(model)).tokenizer.convert_tokens_to_ids(special_tokens())
    assert 0 < len(rows) <= len(set(tags))
    assert set(rows) <= set(tags)


def test_the_figures_say_how_much_was_trained(whole: tuple[Path, Path]) -> None:
    folder, model = whole
    sizes = {name: value.numel() for name, value in load_file(model / "model.safetensors").items()}
    for one in MetricsLog(folder / "figures.jsonl").of("stage"):
        assert one["parameters"] == sum(sizes.values())
        head = sum(size for name, size in sizes.items() if "pooler" in name or "classifier" in name)
        assert one["parameters_trained"] == head + 3 * 2 * 2 * 4 * 32 + len(special_tokens()) * 32


@pytest.mark.parametrize("kind", ["bert", "electra", "roberta", "deberta-v2", "distilbert", "modernbert"])
def test_kept_and_merged_weights_give_the_same_logits(tmp_path: Path, kind: str) -> None:
    weights = attached(tmp_path, kind)
    before = logits(weights)
    disturb(weights)
    disturbed = logits(weights)
    assert not torch.allclose(before, disturbed, atol=1e-3)

    weights.save_atomically(tmp_path / "kept")
    again = attached(tmp_path, kind)
    again.restore(tmp_path / "kept")
    torch.testing.assert_close(logits(again), disturbed)
    again.merge()
    torch.testing.assert_close(logits(again), disturbed, atol=1e-4, rtol=1e-4)
    again.model.save_pretrained(str(tmp_path / "written"), create_model_card=False)
    written = CrossEncoder(str(tmp_path / "written"), device="cpu", max_length=32)
    found = torch.from_numpy(written.predict(PAIRS, activation_fn=torch.nn.Identity()))
    torch.testing.assert_close(found, disturbed, atol=1e-4, rtol=1e-4)


def test_adapters_drop_their_input_where_the_model_drops_nothing(tmp_path: Path) -> None:
    model = load_cross_encoder(write_cross_encoder(tmp_path / "bert"), max_length=32)
    Weights(model, Lora(**LORA), tags=(), seed=7)
    for mode in (True, False):
        model.train(mode)
        assert {
            part.training for name, part in model.named_modules() if name.endswith("lora_dropout.default")
        } == {mode}
        assert not model.training


def test_layers_can_be_named(tmp_path: Path) -> None:
    weights = attached(tmp_path, "roberta", target_modules=("dense",))
    names = [name for name, one in weights.model.named_parameters() if one.requires_grad]
    # output of attention, and both of each feed-forward
    assert sum("lora_A" in name for name in names) == 3 * 3
    assert not any("classifier" in name and "lora" in name for name in names)
    assert any("classifier" in name for name in names)


def test_layers_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="bert has no linear layers 'q_proj'; it has query, key, value, dense"
    ):
        attached(tmp_path, target_modules=("query", "q_proj"))
