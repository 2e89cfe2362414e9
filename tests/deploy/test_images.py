"""The images of deploy/: linted, and their steps run in a plain folder, since there is no builder here.

Not run: the base images, and what `pip` would fetch beside Nightrank.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import apache_beam
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from rerank_core.scoring.load import DEFAULT_MODEL

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
IMAGES = {"Dockerfile": "cpu", "Dockerfile.gpu": "gpu"}


def steps(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments; continued lines are joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in text.splitlines() if line.strip()
    ]


def extras() -> dict[str, list[str]]:
    """The extras of setup.py."""
    given: dict[str, Any] = {}
    with mock.patch("setuptools.setup", given.update):
        runpy.run_path(str(ROOT / "setup.py"))
    extras: dict[str, list[str]] = given["extras_require"]
    return extras


@pytest.mark.parametrize("name", IMAGES)
def test_a_linter_finds_nothing(name: str) -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not linter and not os.environ.get("NIGHTRANK_REQUIRE_SERVERS"):
        pytest.skip("pip install '.[dev]' brings hadolint")
    assert linter
    done = subprocess.run([linter, DEPLOY / name], capture_output=True, text=True, timeout=600)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_the_versions_of_this_package(name: str) -> None:
    arguments = dict(value.split("=") for step, value in steps(name) if step == "ARG" and "=" in value)
    requires = re.search(r'requires-python = "(.*)"', (ROOT / "pyproject.toml").read_text())
    assert requires
    assert arguments["PYTHON"] in SpecifierSet(requires[1])
    beam = re.search(r'"apache-beam(>=[^"]*)"', (ROOT / "setup.py").read_text())
    assert beam
    assert arguments["BEAM"] in SpecifierSet(beam[1])
    assert apache_beam.__version__ in SpecifierSet(beam[1])


@pytest.mark.parametrize("name", IMAGES)
def test_the_package_is_whole_after_the_steps(name: str, tmp_path: Path) -> None:
    """The COPY steps into an empty folder, and its pip into another one, without a network and without dependencies."""
    context, installed = tmp_path / "image", tmp_path / "installed"
    context.mkdir()
    for step, value in steps(name):
        if step == "COPY":
            *sources, target = value.split()
            for source in sources:
                _copy(ROOT / source, context / target)
        if step == "RUN" and value.startswith("pip install"):
            wanted = re.findall(r'"(.*?)"', value)
            assert wanted[0] == f".[{IMAGES[name]}]"
            assert IMAGES[name] in extras()
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            offline = ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(installed)]
            subprocess.run([*pip, *offline, wanted[0]], cwd=context, check=True, timeout=300)
    model = DEFAULT_MODEL.relative_to(ROOT)
    for part in (model, Path("rerank_core/models/entities")):
        had = {path.relative_to(ROOT) for path in (ROOT / part).rglob("*") if path.is_file()}
        assert {
            path.relative_to(installed) for path in (installed / part).rglob("*") if path.is_file()
        } >= had
    check = "import pipelines.cli, nightrank, sys; print(pipelines.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip() == str(installed / "pipelines" / "__init__.py"), done.stderr


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def test_the_engine_for_a_setup_file_is_that_of_the_extra() -> None:
    lines = (DEPLOY / "requirements-cpu.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == extras()["cpu"]
    assert all(Requirement(line) for line in extras()["cpu"])
