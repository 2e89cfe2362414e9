"""What a repository of this kind states in several files, against each other."""

from __future__ import annotations

import re
from pathlib import Path

import pipelines

ROOT = Path(__file__).parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_pre_commit_runs_the_ruff_of_make_check() -> None:
    pinned = set(re.findall(r"ruff==[\d.]+", read("setup.py")))
    assert len(pinned) == 1
    assert set(re.findall(r"ruff==[\d.]+", read(".pre-commit-config.yaml"))) == pinned


def test_the_workflow_calls_the_commands_of_the_gate() -> None:
    commands = re.findall(r"^make \w+$", read(".ci/run"), re.MULTILINE)
    assert commands == re.findall(r"- run: (make \w+)$", read(".github/workflows/test.yml"), re.MULTILINE)
    assert commands == ["make check", "make test"]


def test_the_version_has_one_place() -> None:
    assert pipelines.__version__ not in read("setup.py")
    assert f'version = "{pipelines.__version__}"' not in read("pyproject.toml")
    assert '{ attr = "pipelines.__version__" }' in read("pyproject.toml")


def test_every_package_is_typed() -> None:
    packages = [
        name for name in ("nightrank", "pipelines", "rerank_core", "schemas") if (ROOT / name).is_dir()
    ]
    assert all((ROOT / name / "py.typed").exists() for name in packages)
