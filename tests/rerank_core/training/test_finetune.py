"""A training of a few steps, for real: killed and resumed, measured, ended early, with every loss."""

from __future__ import annotations

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

from rerank_core.features.render import special_tokens
from rerank_core.training.finetune import newest_checkpoint
from rerank_core.training.metrics_log import MetricsLog
from tests.support.tiny_training import train, training_config, two_stages

ROOT = Path(__file__).parents[3]


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    return MetricsLog(folder / "figures.jsonl").of(kind)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Both stages without a break: their folder, and the model's."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, two_stages(folder))


def test_a_killed_training_ends_with_the_same_weights(whole: tuple[Path, Path], tmp_path: Path) -> None:
    folder, model = whole
    shutil.copytree(folder / "base", tmp_path / "base")
    # Between two checkpoints in the second epoch of a stage; then, resumed, in the second stage.
    deaths = ["pairs", "8", "lists", "5"]

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.tiny_training", str(tmp_path), "{}", *deaths],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.split() == ["best-6", "checkpoint-3", "checkpoint-6"]
    assert second.split() == ["best-4", "checkpoint-3", "checkpoint-4", "model"]
    resumed = train(tmp_path, two_stages(tmp_path))

    assert (resumed / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    for kind in ("loss", "dev", "stage"):
        assert [dict(one, dev="") for one in lines(tmp_path, kind)] == [
            dict(one, dev="") for one in lines(folder, kind)
        ]


def test_a_checkpoint_that_is_not_whole_is_removed(tmp_path: Path) -> None:
    for step, state in ((2, "{}"), (10, "{}"), (12, '{"epoch'), (14, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)

    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]


def test_figures_tell_losses_measures_and_what_was_forgotten(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    pairs, lists = lines(folder, "stage")
    assert [one["step"] for one in lines(folder, "loss") if one["stage"] == "lists"] == list(range(1, 9))
    assert [(one["stage"], one["step"], one["epoch"]) for one in lines(folder, "dev")] == [
        ("pairs", 0, 0.0),
        ("pairs", 6, 1.0),
        ("pairs", 12, 2.0),
        ("lists", 4, 1.0),
        ("lists", 8, 2.0),
    ]
    assert lists["first_dev_after_first_stage"] == pairs["nDCG@10"]
    assert lists["forgotten"] == pairs["nDCG@10"] - lists["first_dev_now"]
    assert lists["examples"] == 32  # 12 groups and a third of them again, for a quarter of all: twice
    best = {one["stage"]: one["step"] for one in lines(folder, "dev") if one["best"]}
    assert best == {"pairs": pairs["best_step"], "lists": lists["best_step"]}


def test_nothing_pickled_is_left(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".jsonl", ".safetensors", ".arrow"}


def test_a_stage_that_was_killed_after_its_end_only_writes_its_model(tmp_path: Path) -> None:
    settings = training_config(
        tmp_path, {"name": "one", "epochs": 6, "lr": 1e-9}, patience=2, checkpoint_steps=100
    )

    def stop(line: dict[str, Any]) -> None:
        if line["kind"] == "stage":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, settings, on_line=stop)
    before = lines(tmp_path, "loss")
    assert not (tmp_path / "work" / "1-one" / "model").exists()

    train(tmp_path, settings)

    assert lines(tmp_path, "loss")[: len(before)] == before
    assert lines(tmp_path, "stage")[0]["step"] == max(one["step"] for one in before)
    assert (tmp_path / "work" / "1-one" / "model").is_dir()


@pytest.mark.parametrize(
    ("loss", "precision"),
    [
        ("bce", "bf16"),
        ("listwise", "bf16"),
        ("lambda", "fp32"),
        ("ranknet", "fp32"),
        ("margin_mse", "fp32"),
        ("distil", "fp32"),
    ],
)
def test_every_loss_learns(tmp_path: Path, loss: str, precision: str) -> None:
    settings = training_config(
        tmp_path, {"name": "one", "epochs": 12, "loss": loss, "lr": 3e-3}, precision=precision, log_steps=6
    )
    train(tmp_path, settings, dev=False)
    losses = [one["loss"] for one in lines(tmp_path, "loss")]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert all("nDCG@10" not in one for one in lines(tmp_path, "stage"))


def test_tags_become_tokens_that_learn(whole: tuple[Path, Path]) -> None:
    folder, model = whole
    before = load_file(folder / "work" / "start" / "model.safetensors")
    after = load_file(model / "model.safetensors")
    known = CrossEncoder(str(model)).tokenizer.get_vocab()
    name = "bert.embeddings.word_embeddings.weight"
    hop = known["[HOP:0]"]
    assert set(special_tokens()) <= set(known)
    assert not torch.equal(before[name][hop], after[name][hop])
    unseen = known["[HOP:3]"]  # no group has it but by forgery
    assert before[name].shape[0] == len(known) > unseen
