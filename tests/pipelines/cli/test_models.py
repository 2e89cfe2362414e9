"""`nightrank models`: a registry as a table and as JSON, additions and removals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli import console
from pipelines.cli.app import app
from pipelines.registry.entry import Lineage, Parent, TrainedOn
from pipelines.registry.store import Registry
from tests.support.word_models import GOOD, SERVING, write_word_model

RUNNER = CliRunner(env={"COLUMNS": "200"})


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry"))


def call(*arguments: str) -> tuple[int, str]:
    done = RUNNER.invoke(app, ["models", *arguments])
    return done.exit_code, done.output


def test_a_registry_from_empty_to_a_removed_model(registry: Registry, tmp_path: Path) -> None:
    code, output = call(registry.path)
    assert (code, "Until one serves, the model that ships with Nightrank does" in output) == (0, True)
    one, two = (write_word_model(tmp_path / name, w) for name, w in (("one", SERVING), ("two", GOOD)))
    code, output = call(registry.path, "--add", str(one))
    assert (code, "Added" in output, "candidate" in output) == (0, True, True)
    code, output = call(registry.path, "--add", str(two), "--json")
    record = json.loads(output)
    assert record["models"][0]["id"] == record["added"]
    first, second = (model["id"] for model in record["models"][::-1])
    registry.promote(
        first, reason="the [bold]first[/]", forced=True, checks=[{"passed": True, "sentence": "it is fine"}]
    )
    registry.promote(second, reason="better", checks=[{"passed": False, "sentence": "not fine"}])
    code, output = call(registry.path, "--decisions")
    for said in (
        "serving",
        "retired",
        "by force: the [bold]first[/]",
        "passed it is fine",
        "failed not fine",
    ):
        assert said in output
    code, output = call(registry.path, "--remove", first)
    assert (code, "the one to go back to" in output) == (3, True)
    registry.rollback(reason="slow")
    code, output = call(registry.path, "--remove", second)
    assert (code, second in output) == (0, False)
    assert call(registry.path, "--quiet") == (0, "")


def test_the_table_names_runs_and_parent(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "out", Console(width=200, highlight=False))
    folder = write_word_model(tmp_path / "one", GOOD)
    registry.add(folder, Lineage((TrainedOn("out", "20260308-abc"),), {}, Parent("base-model")))
    _, output = call(registry.path)
    assert "20260308-abc" in output
    assert "base-model" in output


def test_what_cannot_be_used_is_one_line(registry: Registry, tmp_path: Path) -> None:
    code, output = call(registry.path, "--add", str(tmp_path / "none"))
    assert (code, "no model's folder" in output) == (3, True)
    Path(registry.path).mkdir(exist_ok=True)
    (Path(registry.path) / "serving.json").write_text("{")
    code, output = call(registry.path)
    assert (code, "is damaged" in output, output.count("\n")) == (3, True, 1)


def test_a_damaged_decision_is_one_line(registry: Registry, tmp_path: Path) -> None:
    model = registry.add(write_word_model(tmp_path / "one", SERVING)).id
    registry.promote(model, reason="first")
    (path,) = Path(registry.path, "decisions").iterdir()
    path.write_text("{")
    code, output = call(registry.path)
    assert (code, "serving" in output) == (0, True)
    (line,) = (line for line in output.splitlines() if line.startswith("damaged "))
    assert str(path) in line
    assert "remove it" in line
    assert json.loads(call(registry.path, "--json")[1])["problems"] == [line.removeprefix("damaged ")]
