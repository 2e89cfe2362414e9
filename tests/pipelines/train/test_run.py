"""`nightrank train` from a published night to a model that the next night scores with."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.nightly.run import run
from pipelines.storage.lock import lock
from pipelines.train.run import BOARD, FIGURES, LAST, WORK, train
from rerank_core.config.training import TrainingConfig
from rerank_core.errors import MissingEngine
from rerank_core.features.render import special_tokens
from rerank_core.scoring.load import load_scorer
from tests.conftest import Night
from tests.support.tiny import DAY, Tiny, make_config, write_beir
from tests.support.tiny_models import write_cross_encoder
from tests.support.tiny_nights import as_toml, make_training

Make = Callable[..., TrainingConfig]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("base") / "bert", initializer_range=0.05)


@pytest.fixture
def make(night: Night, base: Path, tmp_path: Path) -> Make:
    return partial(make_training, night.output, base, tmp_path)


def run_training(config: TrainingConfig, **options: Any) -> Any:
    return train(config, command="nightrank train --config t.toml", toml="seed = 7", **options)


def test_a_training_gives_a_folder_for_every_engine(
    make: Make, night: Night, tiny: Tiny, tmp_path: Path
) -> None:
    folder = write_beir(
        tmp_path / "set", {"q1": "solaris novel"}, "query-id\tcorpus-id\tscore\nq1\tsolaris\t1\n"
    )
    done = run_training(make(dev=str(folder), licence="apache-2.0"))

    model = Path(done.path)
    assert {path.suffix for path in model.rglob("*.*")} == {".json", ".jsonl", ".md", ".safetensors", ".onnx"}
    assert not (model / WORK).exists()
    encoder = CrossEncoder(str(model), device="cpu")
    assert set(special_tokens()) <= set(encoder.tokenizer.get_vocab())
    pairs = [("[HOP:0] [ROLE:Definition] who wrote dune", "dune is a novel"), ("who", "rain falls")]
    wanted = encoder.predict(pairs, activation_fn=torch.nn.Identity())
    for backend in ("onnx", "torch"):
        scorer = load_scorer(model, backend=backend, max_length=48)
        assert scorer.reads_tags
        np.testing.assert_allclose(scorer.score(pairs), wanted, atol=1e-4)
    small = load_scorer(model, onnx_file="onnx/model_int8.onnx", max_length=48).score(pairs)
    assert np.abs(small - wanted).max() < 0.5

    card = (model / "README.md").read_text()
    for said in (
        night.manifest.run_id,
        night.manifest.created_at,
        "license: apache-2.0",
        "nightrank train --config t.toml",
        "seed = 7",
        "set (dev), 1 judged queries",
        "labels by clicks",
        "positives of queries that are in a dev set",
    ):
        assert said in card
    assert str(tmp_path) not in card
    lines = [json.loads(line) for line in (model / FIGURES).read_text().splitlines()]
    assert lines == done.lines
    assert {line["kind"] for line in lines} == {"loss", "dev", "stage"}

    reranked = run(
        make_config(tiny, tmp_path / "next", scoring={"model": str(model), "max_length": 48}), run_date=DAY
    )
    assert reranked.balance.pairs["published"] > 0


def test_a_training_that_was_killed_goes_on_and_no_other_does(make: Make, tmp_path: Path) -> None:
    def die(line: dict[str, Any]) -> None:
        if line["kind"] == "loss" and line["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(make(checkpoint_steps=1), on_line=die)
    runner, config = CliRunner(), tmp_path / "train.toml"
    raw = make(checkpoint_steps=1)
    config.write_text(as_toml(raw))

    refused = runner.invoke(app, ["train", "--config", str(config)])
    assert (refused.exit_code, "resume it with --resume" in refused.output) == (2, True)
    config.write_text(as_toml(raw).replace("seed = 7", "seed = 8"))
    refused = runner.invoke(app, ["train", "--config", str(config), "--resume"])
    assert (refused.exit_code, "with other values of seed" in refused.output) == (2, True)
    config.write_text(as_toml(raw))
    with lock(str(tmp_path / "model" / WORK), "training"):
        refused = runner.invoke(app, ["train", "--config", str(config), "--resume"])
    assert refused.exit_code == 4
    done = runner.invoke(app, ["train", "--config", str(config), "--resume", "--quiet"])
    assert done.exit_code == 0, done.output
    again = runner.invoke(app, ["train", "--config", str(config), "--resume"])
    assert (again.exit_code, "already has a model" in again.output) == (2, True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "model" / FIGURES).read_text().splitlines()]
    assert steps[:-1] == list(range(1, steps[-1] + 1))


def test_two_processes_write_one_folder(night: Night, tmp_path: Path) -> None:
    """With adapters and event files, as torchrun starts them; the weights are those of one process."""
    pytest.importorskip("peft", reason="needs peft: pip install 'nightrank[train]'")
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'nightrank[tensorboard]'")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    base, config = (
        write_cross_encoder(tmp_path / "base", initializer_range=0.05, **still),
        tmp_path / "t.toml",
    )
    text = (
        f'model = "{base}"\noutput = "one"\nmax_length = 48\nlog_steps = 1\ntensorboard = true\n'
        f'[lora]\nr = 2\n[[stages]]\nname = "one"\nruns = ["{night.output}"]\nlr = 1e-3\nepochs = 3\naccumulation = 2\n'
    )
    config.write_text(text)
    alone = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["train", "--config", str(config)])
    assert alone.exit_code == 0, alone.output
    config.write_text(text.replace('output = "one"', 'output = "two"'))
    together = subprocess.run(
        [
            sys.executable,
            *"-m torch.distributed.run --standalone --nproc-per-node 2 -m pipelines.cli train --config".split(),
            str(config),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert together.returncode == 0, together.stderr

    for said in (alone.output, together.stdout):
        assert said.count("scoring.model = ") == 1
        assert "parameters, as adapters merged into the model" in said
    assert (
        "Low-rank adapters (r = 2, alpha = 16, dropout = 0) and"
        in (tmp_path / "two" / "README.md").read_text()
    )
    one, two = (
        {
            path.relative_to(tmp_path / name).parts[0]
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two
    assert {BOARD, "onnx", LAST} <= two
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=0, msg=name)
    losses = [
        [line["loss"] for line in map(json.loads, (tmp_path / name / FIGURES).read_text().splitlines()[:-1])]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    events = list((tmp_path / "two" / BOARD / "one").iterdir())
    assert len(events) == 1


def test_tensorboard_that_is_not_there_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else found(name, *rest)
    )
    with pytest.raises(
        MissingEngine, match=r"enabled but not installed: pip install 'nightrank\[cpu,train,tensorboard\]'"
    ):
        run_training(make(tensorboard=True))
    assert not (tmp_path / "model").exists()
