"""`nightrank verify`: one line a finding, and the exit code of a damaged run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.storage import runs
from tests.conftest import Night


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


@pytest.fixture
def output(output: Path, night: Night) -> Path:
    """Two published runs, the older one damaged, and a held run without a readable manifest."""
    (output / runs.held_path("2026-03-10", "20260310-held") / "manifest.json").write_text("[]")
    victim = Path(runs.table_files(str(output), night.manifest, "reranked")[0])
    victim.write_bytes(victim.read_bytes()[:-9])
    return output


def test_a_whole_run_passes(output: Path) -> None:
    shown = call(output)
    assert shown.exit_code == 0, shown.output
    assert "OK: 1 run verified, no findings" in shown.stdout
    shown = call(output, "--run-id", "20260309-newest", "--quiet")
    assert (shown.exit_code, shown.output) == (0, "")
    shown = call(output, "--json")
    assert shown.exit_code == 0
    run = {"run_id": "20260309-newest", "run_date": "2026-03-09", "held": False, "findings": []}
    assert json.loads(shown.stdout) == {"runs": [run], "folder": []}


def test_a_damaged_run_is_an_error(night: Night, output: Path) -> None:
    shown = call(output, "--run-id", night.manifest.run_id)
    assert shown.exit_code == 3
    lines = shown.stdout.splitlines()
    assert "is not a readable Parquet file" in lines[0]
    assert lines[0].startswith(f"{night.manifest.run_id}: ")
    assert f"{len(lines)} findings in {output}: {lines[0][:40]}" in shown.stderr.replace("\n", " ")


def test_every_run_is_verified_published_or_held(night: Night, output: Path) -> None:
    shown = call(output, "--all", "--json")
    assert shown.exit_code == 3
    printed = json.loads(shown.stdout)
    damaged = {run["run_id"]: run["held"] for run in printed["runs"] if run["findings"]}
    assert damaged == {night.manifest.run_id: False, "20260310-held": True}
    assert len(printed["runs"]) == 3
    assert printed["folder"]


def test_a_held_run_is_verified_by_its_id(output: Path) -> None:
    shown = call(output, "--run-id", "20260310-held")
    assert shown.exit_code == 3
    assert shown.stdout.startswith("20260310-held: ")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--run-id", "nosuch"], 3, "no run 'nosuch' in"),
        (["--run-id", ""], 2, "it is empty"),
        (["--run-id", "x", "--all"], 2, "exclude each other"),
    ],
)
def test_what_cannot_be_verified(output: Path, options: list[str], code: int, message: str) -> None:
    shown = call(output, *options)
    assert shown.exit_code == code
    assert message in shown.stderr


def test_a_folder_without_runs(tmp_path: Path) -> None:
    for options in ([], ["--all"]):
        shown = call(tmp_path, *options)
        assert shown.exit_code == 3
        assert "there is no run in" in shown.stderr
