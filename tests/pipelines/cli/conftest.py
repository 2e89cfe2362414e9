"""An output folder as it is after some nights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.storage.held import hold
from pipelines.storage.publish import publish
from tests.conftest import Night
from tests.pipelines.storage.conftest import renamed, stage


@pytest.fixture
def output(night: Night, tmp_path: Path) -> Path:
    """A run of 8 March, a newer one, and a held one."""
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    newest = renamed(night, "20260309-newest", run_date="2026-03-09")
    stage(night, output, newest)
    publish(str(output), newest)
    held = renamed(night, "20260310-held", run_date="2026-03-10")
    stage(night, output, held)
    hold(str(output), held)
    return output
