"""`nightrank train`: what it prints, and its exit codes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from tests.conftest import Night
from tests.support.tiny import Tiny
from tests.support.tiny_models import write_cross_encoder
from tests.support.tiny_nights import as_toml, make_training
from tests.support.tiny_rounds import make_rounds


@pytest.fixture
def toml(night: Night, tmp_path: Path) -> str:
    """A training over the night, as a file's text."""
    base = write_cross_encoder(tmp_path / "base", initializer_range=0.05)
    return as_toml(make_training(night.output, base, tmp_path))


def test_the_summary_shows_figures_and_what_was_left_out(toml: str, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(
        toml.replace("[stages.tags]", "[stages.negatives]\nhard = 1\n[stages.tags]")
    )
    done = CliRunner(env={"COLUMNS": "120"}).invoke(
        app, ["train", "--config", str(tmp_path / "train.toml"), "--quick"]
    )
    assert done.exit_code == 0, done.output
    for said in (
        "stage",
        "nDCG@10",
        "  left out ",
        "negatives beyond the configured number",
        "scoring.model = ",
    ):
        assert said in done.output
    assert "A trial" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('model = "m"\n', 2, "Missing required|required"),
        ('model = "m"\noutput = "o"\n[[stages]]\nname = "a"\nruns = ["none"]\n', 3, "no published run in"),
    ],
)
def test_mistakes_have_exit_codes(tmp_path: Path, text: str, code: int, message: str) -> None:
    (tmp_path / "train.toml").write_text(text)
    done = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "train.toml")])
    assert done.exit_code == code
    assert any(part in done.output for part in message.split("|"))
    assert "Traceback" not in done.output


def test_a_missing_extra_is_named(toml: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.toml").write_text(toml)
    monkeypatch.setitem(sys.modules, "datasets", None)
    done = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "train.toml")])
    assert done.exit_code == 3
    assert "pip install 'nightrank[cpu,train]'" in done.output
    assert not os.path.exists(tmp_path / "model")


def test_the_flag_wins_and_the_summary_tells(night: Night, tiny: Tiny, tmp_path: Path) -> None:
    training = make_rounds(night.output, tiny.folder / "corpus.jsonl", tmp_path, remining={"dense": {}})
    config = tmp_path / "train.toml"
    config.write_text(
        f'model = "{training.model}"\noutput = "{training.output}"\nmax_length = 48\nrounds = 1\n'
        f'[[stages]]\nname = "one"\nruns = ["{night.output}"]\n'
    )
    done = CliRunner(env={"COLUMNS": "120"}).invoke(
        app, ["train", "--config", str(config), "--rounds", "2", "--quick"]
    )
    assert done.exit_code == 0, done.output
    for said in (
        "one-r2",
        "mined again: ",
        "judge of false negatives: the model itself",
        "after each of 2 rounds: not measured, not measured; kept: round 2",
    ):
        assert said in done.output
    assert (
        "nightrank train --config train.toml --rounds 2 --quick"
        in (Path(training.output) / "README.md").read_text()
    )
