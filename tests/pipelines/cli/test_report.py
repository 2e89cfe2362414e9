"""`nightrank report`: where it writes, what it prints, and what it refuses."""

from __future__ import annotations

import shutil
import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.storage.runs import run_path
from tests.conftest import Night


@pytest.fixture
def output(night: Night, tmp_path: Path) -> Path:
    shutil.copytree(night.output, tmp_path / "output")
    return tmp_path / "output"


def report(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["report", *words])
    return result.exit_code, " ".join(result.output.split())


def test_it_writes_beside_the_manifest_and_prints_the_path(night: Night, output: Path) -> None:
    path = output / run_path("2026-03-08", night.manifest.run_id) / "report.html"
    assert report(str(output)) == (0, str(path))
    assert "Night of Sunday, 8 March 2026" in path.read_text()
    assert report(str(output), "--run-id", night.manifest.run_id) == (0, str(path))


def test_it_writes_where_it_is_told(output: Path, tmp_path: Path) -> None:
    page = str(tmp_path / "new" / "page.html")
    assert report(str(output), "--to", page) == (0, page)
    assert not list(output.rglob("report.html"))
    assert report(str(output), "--week", "--to", page) == (0, page)
    assert "Trends" in Path(page).read_text()
    assert report(str(output), "--week") == (0, str(output / "week.html"))


def test_it_opens_the_page(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(webbrowser, "open", seen.append)
    assert report(str(output), "--week", "--open")[0] == 0
    assert seen == [(output / "week.html").resolve().as_uri()]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--week", "--run-id", "x"], 2, "--week and --run-id exclude each other"),
        (["--to", " "], 2, "it is empty"),
        (["--run-id", ""], 2, "it is empty"),
        (["--run-id", "nosuch"], 3, "no run 'nosuch'"),
    ],
)
def test_what_it_cannot_do_is_one_line(output: Path, words: list[str], code: int, told: str) -> None:
    found = report(str(output), *words)
    assert found[0] == code
    assert told in found[1]


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    assert report(str(tmp_path))[0] == 3
    assert "no published run" in report(str(tmp_path))[1]
