"""What a run finds when it starts: what killed runs left is gone, and what no run put there is refused."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.storage import runs
from pipelines.storage.clean import clean
from rerank_core.errors import OutputError
from schemas.tables import TABLES
from tests.conftest import Night
from tests.pipelines.storage.conftest import contents
from tests.support.killed import count_changes, killed


def test_what_killed_runs_left_is_removed(night: Night, output: Path) -> None:
    before = contents(output)
    folder = output / runs.run_path(night.manifest.run_date, night.manifest.run_id)
    orphan = output / "runs" / "run_date=2026-03-08" / "run_id=20260308-killed" / "reranked"
    left = [
        output / "_staging" / "20260308-killed" / "reranked" / "part-0.parquet",
        orphan / "part-0.parquet",
        folder / "_manifest.json.tmp-0",
        output / "_latest.json.tmp-0",
        output / "reranked" / "run_date=2026-03-01" / "run_id=20260301-gone" / "part-0.parquet",
        output / "reranked" / "run_date=2026-03-08" / "run_id=20260308-killed" / "part-0.parquet",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    (output / "notes.txt").write_text("a person's own")
    clean(str(output))
    assert contents(output) == before | {"notes.txt": b"a person's own"}
    assert not orphan.parent.exists()
    assert not (output / "_staging").exists()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("damage", ["missing", "partial", "another run's", "of other bytes"])
def test_what_a_table_shows_is_made_anew(night: Night, output: Path, table: str, damage: str) -> None:
    before = contents(output)
    shown = output / table / "run_date=2026-03-08"
    first = min(shown.rglob("*.parquet"))
    if damage == "missing":
        shutil.rmtree(shown)
    elif damage == "partial":
        first.unlink()
    elif damage == "another run's":
        first.parent.rename(first.parent.with_name("run_id=other"))
    else:
        data = first.read_bytes()
        first.unlink()  # it may be a link to the run's own file
        first.write_bytes(data[:-1] + b"\x00")
    clean(str(output))
    assert contents(output) == before


def test_a_run_that_lost_a_file_does_not_take_the_link_to_it(night: Night, output: Path) -> None:
    table = output / night.manifest.tables["reranked"].path
    min(table.iterdir()).unlink()
    before = contents(output / "reranked")
    clean(str(output))
    assert contents(output / "reranked") == before


@pytest.mark.parametrize("name", ["runs", "runs/run_date=2026-03-08/run_id={}", "reranked"])
def test_a_folder_that_cannot_be_listed_once_is_not_taken_for_an_empty_one(
    night: Night, output: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before, failing = contents(output), [str(output / name.format(night.manifest.run_id))]
    scandir = os.scandir

    def busy(path: Any = ".") -> Any:
        if str(path) in failing:
            failing.remove(str(path))
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", busy)
    with pytest.raises(OutputError, match="cannot clean up .*Too many open files"):
        clean(str(output))
    monkeypatch.undo()
    assert contents(output) == before


def outside(output: Path, name: str) -> Path:
    """Move what is there elsewhere, and put a link to it in its place."""
    target, path = output.parent / "outside", output / name
    if path.exists():
        shutil.move(path, target)
    else:
        target.mkdir()
        (target / "kept.txt").write_text("kept")
    path.symlink_to(target)
    return target


@pytest.mark.parametrize(
    "name",
    [
        "_staging",
        "runs",
        "_held",
        "reranked",
        "dead_letters",
        "runs/run_date=2026-03-08",
        "reranked/run_date=2026-03-08",
    ],
)
def test_a_link_is_not_followed(output: Path, name: str) -> None:
    target = outside(output, name)
    before = contents(target)
    with pytest.raises(OutputError, match=f"{name} is a link"):
        clean(str(output))
    assert contents(target) == before != {}


def as_file(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.write_text("")


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("_staging", as_file, "is a file, where a run needs a folder"),
        ("runs", as_file, "is a file, where a run needs a folder"),
        ("reranked", as_file, "is a file, where a run needs a folder"),
        ("reranked/run_date=2026-03-08", as_file, "is a file, where a run needs a folder"),
        ("latest.json", as_folder, "is a folder; remove it"),
        (
            "runs",
            shutil.rmtree,
            "is of no run, since .*runs does not exist; choose a new output.path, or move",
        ),
        ("manifests", Path.mkdir, "layout of an earlier version .*; choose a new output.path, or move"),
    ],
)
def test_what_no_run_put_there_is_refused(
    output: Path, name: str, change: Callable[[Path], None], message: str
) -> None:
    change(output / name)
    before = contents(output)
    with pytest.raises(OutputError, match=message):
        clean(str(output))
    assert contents(output) == before


def test_the_output_folder_itself_may_be_a_link(output: Path) -> None:
    before = contents(output)
    (output.parent / "link").symlink_to(output)
    clean(str(output.parent / "link"))
    assert contents(output) == before
    assert runs.latest(str(output.parent / "link"))


def test_a_date_without_a_run_goes_from_each_table_in_one_step(night: Night, output: Path) -> None:
    """Killed anywhere, or listed meanwhile, a table shows all of the date's files or none."""
    shutil.copytree(output, output.parent / "before")
    parts = len(list((output / "reranked").rglob("part-*.parquet")))
    assert parts > 1
    states = set()
    for step in range(1000):
        shutil.rmtree(output)
        shutil.copytree(output.parent / "before", output)
        # retention took the run away
        shutil.rmtree(output / "runs" / f"run_date={night.manifest.run_date}")
        with killed(output, at=step):
            clean(str(output))
        states.add(len(list((output / "reranked").rglob("part-*.parquet"))))
        if count_changes() <= step:
            break
    assert states == {0, parts}
