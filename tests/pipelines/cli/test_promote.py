"""`nightrank promote`: decisions in words and as JSON, exit codes, and options that do not go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.registry.store import Registry
from tests.support.word_models import BAD, GOOD, SERVING, write_word_model, write_word_night

RUNNER = CliRunner(env={"COLUMNS": "200"})


class Night:
    """A night's TOML, whose registry serves one model."""

    def __init__(self, folder: Path, model: str = "registry:serving") -> None:
        config = write_word_night(folder, scoring={"model": model, "max_length": 64})
        self.toml, self.registry = folder / "night.toml", Registry(config.registry.path)
        self.serving = self.registry.add(write_word_model(folder / "serving", SERVING)).id
        self.registry.promote(self.serving, reason="the first")

    def promote(self, *arguments: str) -> tuple[int, str]:
        done = RUNNER.invoke(app, ["promote", "--config", str(self.toml), *arguments])
        return done.exit_code, done.output


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path / "night")


def test_a_good_candidate_serves_and_one_goes_back(night: Night, tmp_path: Path) -> None:
    assert night.promote() == (0, "nothing to promote: the registry has no candidate\n")
    entry = night.registry.add(write_word_model(tmp_path / "good", GOOD))
    code, output = night.promote("--dry-run")
    assert (code, f"{entry.id} would serve in place of {night.serving}" in output) == (0, True)
    code, output = night.promote()
    assert (code, f"{entry.id} serves in place of {night.serving}" in output) == (0, True)
    assert output.count("passed ") == 7
    code, output = night.promote("--rollback", "--reason", "readers complained")
    assert (code, output) == (0, f"{night.serving} serves in place of {entry.id}\n")
    assert night.registry.decisions()[-1].reason == "readers complained"


def test_a_bad_candidate_is_turned_down_with_an_exit_code(night: Night, tmp_path: Path) -> None:
    entry = night.registry.add(write_word_model(tmp_path / "bad", **BAD["constant"]))
    code, output = night.promote("--json")
    result = json.loads(output)
    assert (code, result["promoted"], result["model"]) == (5, False, entry.id)
    code, output = night.promote("--model", entry.id)
    assert (code, "Not promoted" in output, "failed logits" in output) == (5, True, True)
    code, output = night.promote("--model", entry.id, "--force", "--reason", "for a test")
    assert (code, f"{entry.id} serves in place of {night.serving}" in output) == (0, True)
    decision = night.registry.decisions()[-1]
    assert (decision.forced, decision.reason) == (True, "for a test")


def test_a_night_that_reads_another_model_is_told(tmp_path: Path) -> None:
    night = Night(tmp_path / "night", model="owner/name")
    night.registry.add(write_word_model(tmp_path / "good", GOOD))
    _, output = night.promote("--force", "--reason", "x")
    assert 'scoring.model = "owner/name": nights do not read it from the registry' in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--force"], "--force needs --reason"),
        (["--rollback", "--reason", " "], "--rollback needs --reason"),
        (["--rollback", "--reason", "x", "--model", "y"], "names the model itself"),
        (["--reason", "x"], "--reason is for --force"),
    ],
)
def test_options_that_do_not_go_together(night: Night, arguments: list[str], said: str) -> None:
    code, output = night.promote(*arguments)
    assert (code, said in output) == (2, True)


def test_an_unknown_model_names_the_known_ones(night: Night) -> None:
    code, output = night.promote("--model", "20260101-000000000000")
    assert (code, f"it has: {night.serving}" in output) == (3, True)
