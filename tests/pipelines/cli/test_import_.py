"""`nightrank import` as a user types it, then `nightrank train` on what it says to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.cli.import_ import Format
from pipelines.exchange.parse import FORMATS
from tests.support.local_data import write_lines


def test_an_import_names_the_runs_and_the_source(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"anchor": "q", "positive": "p", "negative": "n"}])
    call = ["import", str(file), "--format", "st-triplet", "--to", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*call, "--run-date", "2026-03-09"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "1 examples, 1 queries, 2 training_pairs" in said
    assert 'source = "training_pairs"' in said
    record = json.loads(CliRunner().invoke(app, [*call, "--run-date", "2026-03-09", "--json"]).stdout)
    assert record["run_id"].startswith("20260309-")
    for command, code in (
        (["verify", str(tmp_path / "out")], 0),
        (["runs", str(tmp_path / "out")], 0),
        (["show", "q", "--run", str(tmp_path / "out")], 3),  # it has no lists
    ):
        after = CliRunner().invoke(app, command)
        assert after.exit_code == code, after.output


def test_a_bad_line_is_one_line_and_an_unusable_input(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"anchor": "q", "positive": "p"}])
    done = CliRunner().invoke(
        app, ["import", str(file), "--format", "st-triplet", "--to", str(tmp_path / "out")]
    )
    assert done.exit_code == 3
    assert done.output.count("\n") == 1
    assert "a.jsonl:1: 2 columns beside the label" in done.output


def test_every_format_can_be_named() -> None:
    assert get_args(Format) == tuple(FORMATS)
