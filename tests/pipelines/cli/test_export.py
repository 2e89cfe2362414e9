"""`nightrank export` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.cli.export import Format
from pipelines.exchange.export import FORMATS
from tests.conftest import Night


def test_what_was_written_is_said_and_that_it_holds_queries(night: Night, tmp_path: Path) -> None:
    arguments = ["export", str(night.output), "--format", "trec", "--to", str(tmp_path / "trec")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert f"of run {night.manifest.run_id}; with the queries' texts" in said
    assert "5 queries" in said
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert again.output.count("\n") == 1
    arguments[-1] = str(tmp_path / "json")
    record = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (record["run_id"], record["counts"]["queries"]) == (night.manifest.run_id, 5)


def test_every_format_can_be_named() -> None:
    assert get_args(Format) == tuple(FORMATS)
