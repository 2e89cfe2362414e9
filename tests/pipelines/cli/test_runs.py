"""`nightrank runs`, `rollback` and `release` as a user types them."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Literal

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli import console as cli_console
from pipelines.cli import runs as cli_runs
from pipelines.cli.app import app
from pipelines.storage.overview import RunRow
from pipelines.storage.plan_records import write_plan
from schemas.outcome import PlanRecord, StepRecord
from tests.conftest import Night


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def states(output: Path) -> dict[str, str]:
    shown = call("runs", output, "--json")
    assert shown.exit_code == 0
    return {row["run_id"]: row["state"] for row in json.loads(shown.stdout)["runs"]}


def test_a_run_is_released_and_rolled_back(night: Night, output: Path) -> None:
    first, newest, held = night.manifest.run_id, "20260309-newest", "20260310-held"
    assert states(output) == {held: "held", newest: "latest", first: "published"}
    shown = call("release", output, held)
    assert (shown.exit_code, shown.stdout) == (
        0,
        f"Published run {held} of 2026-03-10; latest.json names run {held}\n",
    )
    shown = call("rollback", output)
    assert shown.exit_code == 0
    assert f"latest.json names run {newest} of 2026-03-09" in shown.stdout
    assert states(output) == {held: "rolled back", newest: "latest", first: "published"}
    shown = call("rollback", output, "--run-id", first, "--json")
    assert json.loads(shown.stdout)["run_id"] == first
    shown = call("rollback", output, "--quiet")
    assert (shown.exit_code, shown.stdout) == (3, "")
    assert f"no run before {first}" in shown.stderr
    assert call("rollback", output, "--run-id", "").exit_code == 2
    shown = call("release", output, held)
    assert shown.exit_code == 3
    assert "is not held back: it is published" in shown.stderr


def test_what_keeps_a_run_from_retention_is_a_line(night: Night, output: Path) -> None:
    """As the last step clean_up that was done found it."""
    first, newest = night.manifest.run_id, "20260309-newest"
    assert "kept" not in call("runs", output).stdout

    def cleaned(day: str, state: Literal["done", "failed"], kept: dict[str, str]) -> None:
        step = StepRecord("clean_up", state, "", "", "", 0.0, {"removed": [], "kept": kept})
        write_plan(str(output), PlanRecord(day, (step,)))

    cleaned("2026-03-07", "done", {newest: "nothing any more"})
    cleaned("2026-03-08", "done", {first: "model [m] was trained on it", "20250101-gone": "x"})
    cleaned("2026-03-09", "failed", {newest: "nothing"})
    lines = [line for line in call("runs", output).stdout.splitlines() if line.startswith("kept")]
    assert lines == [f"kept {first}: model [m] was trained on it"]
    rows = json.loads(call("runs", output, "--json").stdout)["runs"]
    assert [row["kept"] for row in rows if row["kept"]] == ["model [m] was trained on it"]


def test_the_table_fits_80_columns(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(cli_console, "out", Console(file=stream, width=80, color_system=None))
    large = RunRow(
        "2026-03-08",
        "20260308-a6a4e7dd122c",
        "superseded",
        queries=99_960_000,
        pairs=999_000_000,
        reused=998_000_000,
        ndcg_at_10=0.4567,
        bm25_ndcg_at_10=0.3445,
        drift="hold",
        seconds=86_399.0,
        bytes=99_960_000_000,
    )
    problem = "runs/run_date=2026-03-08/run_id=x/manifest.json is damaged"
    damaged = dataclasses.replace(large, state="damaged", problem=problem)
    cli_runs.print_runs([large, dataclasses.replace(large, state="rolled back"), damaged])
    shown = stream.getvalue()
    assert all(len(line) <= 80 for line in shown.splitlines() if problem not in line)
    assert "…" not in shown
    for text in (
        "superseded",
        "100M",
        "999M",
        "100%",
        "45.7+11.2",
        "hold",
        " 24h",
        "100G",
        "rolled",
        problem,
    ):
        assert text in shown
    assert [cli_runs.short(number) for number in (0, 999, 1000, 99_949, 99_950, 1e12)] == [
        "0",
        "999",
        "1.0k",
        "99.9k",
        "100k",
        "1T",
    ]


def test_a_folder_without_runs(tmp_path: Path) -> None:
    shown = call("runs", tmp_path)
    assert (shown.exit_code, "there is no run in" in shown.stderr) == (3, True)
