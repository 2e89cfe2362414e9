"""`nightrank diff`: what it prints of two runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.storage.held import hold
from tests.conftest import Night
from tests.pipelines.storage.conftest import renamed, stage
from tests.support.published_run import rewrite


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["diff", *map(str, arguments)])


@pytest.fixture
def output(night: Night, tmp_path: Path) -> Path:
    """A night, in the order of BM25 where it is published; and held as it was made."""
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    held = renamed(night, "20260310-held", run_date="2026-03-10")
    stage(night, output, held)
    hold(str(output), held)

    def as_before(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index("rank")
        return rows.set_column(at, rows.schema.field(at), rows["rank_before"])

    rewrite(output, night.manifest, "reranked", as_before)
    return output


def test_two_runs_side_by_side(night: Night, output: Path) -> None:
    shown = call(output, night.manifest.run_id, "20260310-held", "--top", "2")
    assert shown.exit_code == 0, shown.output
    assert f"{night.manifest.run_id} -> 20260310-held" in shown.stdout
    assert "5 in both, 0 added, 0 removed" in shown.stdout
    assert shown.stdout.count("\n  - ") == shown.stdout.count("\n  + ") == 2
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    shown = call(output, night.manifest.run_id, "20260310-held", "--json")
    printed = json.loads(shown.stdout)
    assert printed["queries"]["common"] == 5
    assert printed["moved"][0]["query"]
    assert printed["overlap_at_10"] == 1  # the same passages, in another order
    assert printed["rank_correlation"] < 1


def test_a_run_that_is_not_there(night: Night, output: Path) -> None:
    shown = call(output, night.manifest.run_id, "nosuch")
    assert shown.exit_code == 3
    assert "no run 'nosuch'" in shown.stderr
