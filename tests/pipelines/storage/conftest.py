"""Runs to publish again, and folders in which one is published."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from pipelines.storage import filesystem, runs
from schemas.manifest import Manifest
from schemas.tables import TABLES
from tests.conftest import Night


def stage(night: Night, output: Path, manifest: Manifest) -> None:
    """Put a run's files into staging, as a finished pipeline leaves them: with tallies, progress and a dead file."""
    base = Path(runs.staging(str(output), manifest.run_id))
    for name in TABLES:
        shutil.copytree(night.output / night.manifest.tables[name].path, base / name)
    (base / "tallies.json").write_text("{}")
    (base / "_progress").mkdir()
    (base / "reranked" / "_part-00000-of-00003.parquet.tmp-0").write_text("half")


def renamed(night: Night, run_id: str, **changes: str) -> Manifest:
    """The night's manifest under another id, so that it publishes beside it."""
    run_date = changes.get("run_date", night.manifest.run_date)
    tables = {
        name: dataclasses.replace(info, path=runs.table_path(name, run_date, run_id))
        for name, info in night.manifest.tables.items()
    }
    later = {"created_at": "2999-01-01T00:00:00.000+00:00"} | changes
    return dataclasses.replace(night.manifest, run_id=run_id, tables=tables, **later)


@pytest.fixture
def output(night: Night, tmp_path: Path) -> Path:
    """An output folder in which the night is published."""
    shutil.copytree(night.output, tmp_path / "output")
    return tmp_path / "output"


def stage_remotely(night: Night, store: str, manifest: Manifest) -> None:
    """`stage` in an object store."""
    for table in manifest.tables:
        for path in runs.table_files(str(night.output), night.manifest, table):
            target = filesystem.join(runs.staging(store, manifest.run_id), table, Path(path).name)
            filesystem.write_bytes(target, Path(path).read_bytes())
    filesystem.write_bytes(filesystem.join(runs.staging(store, manifest.run_id), "tallies.json"), b"{}")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
