"""The configurations in examples/: all load, and nightly.toml and train.toml say every default."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rerank_core.config.night import Config, load_config
from rerank_core.config.training import TrainingConfig, TrainingStage, load_training_config

EXAMPLES = Path(__file__).parents[2] / "examples"


def fields(node: Any, *, name: str = "") -> Iterator[tuple[str, Any]]:
    """("section.field", default) of every field; a table of free keys counts as one."""
    for field in dataclasses.fields(node):
        value, path = getattr(node, field.name), f"{name}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from fields(value, name=f"{path}.")
        else:
            yield path, list(value) if isinstance(value, tuple) else value  # TOML has lists


def stated(raw: dict[str, Any], free: set[str], *, name: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        path = f"{name}{key}"
        if isinstance(value, dict) and path not in free:
            yield from stated(value, free, name=f"{path}.")
        else:
            yield path, value


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    if path.name.startswith("train"):
        assert isinstance(load_training_config(path), TrainingConfig)
    else:
        assert isinstance(load_config(path), Config)


def test_the_training_reference_states_every_field_with_its_default() -> None:
    raw = tomllib.loads((EXAMPLES / "train.toml").read_text(encoding="utf-8"))
    (stage,) = raw.pop("stages")
    given = {"name": stage["name"], "runs": stage["runs"]}
    needed = {"model": raw["model"], "output": raw["output"]}
    blank = TrainingConfig(**needed, stages=(TrainingStage(given["name"], tuple(given["runs"])),))
    defaults = dict(fields(blank))
    (first,) = defaults.pop("stages")
    assert dict(stated(raw, set())) == defaults
    assert dict(stated(stage, set())) == dict(fields(first))
    lines = (EXAMPLES / "train.toml").read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if "=" in line.split("#")[0] and "#" not in line]
    assert {line.split("=")[0].strip() for line in bare} <= {"epochs"}


def test_the_reference_states_every_field_with_its_default() -> None:
    defaults = dict(fields(Config()))
    raw = tomllib.loads((EXAMPLES / "nightly.toml").read_text(encoding="utf-8"))
    written = dict(stated(raw, {name for name, value in defaults.items() if isinstance(value, dict)}))
    assert written == defaults
    # 1 and 1.0 are equal, and not the same to a reader
    assert {name: type(value) for name, value in written.items()} == {
        name: type(value) for name, value in defaults.items()
    }
    assert len(written) > 40


def test_every_field_of_the_reference_is_explained() -> None:
    lines = (EXAMPLES / "nightly.toml").read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if "=" in line.split("#")[0] and "#" not in line]
    # Their section's comment or their name says it all.
    assert {line.split("=")[0].strip() for line in bare} <= {"query", "enabled", "seed"}
