"""`nightrank publish` and `nightrank load`, the parts that need no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.cli.app import app
from tests.support.published_run import publish_run


def call(*arguments: str) -> Any:
    from typer.testing import CliRunner

    return CliRunner().invoke(app, [*arguments])


@pytest.mark.parametrize("arguments", [[], ["out", "--rollback"]])
def test_a_run_or_a_rollback_not_both(arguments: list[str]) -> None:
    assert call("publish", *arguments, "--to", "http://localhost:1").exit_code == 2


def test_nobody_at_home(tmp_path: Path) -> None:
    publish_run(tmp_path, run_id="r1", queries=2)
    assert call("publish", str(tmp_path), "--to", "http://127.0.0.1:9").exit_code == 3
    assert call("publish", str(tmp_path / "none"), "--to", "http://127.0.0.1:9").exit_code == 3
    assert call("load", "sample_data", "--index", "x", "--to", "http://127.0.0.1:9").exit_code == 3
