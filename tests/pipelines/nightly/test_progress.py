"""Progress that crosses processes through small files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipelines.nightly import progress
from pipelines.nightly.progress import Progress, ProgressFile, read, watch
from pipelines.nightly.shards import Shard


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.01)


def shard(number: int, total: int) -> Shard:
    return Shard(number, total, (), ())


def test_parts_of_a_shard_add_up_to_it(tmp_path: Path) -> None:
    for part in range(3):
        one = shard(0, 2)._replace(part=(part,), share=1 / 3)
        ProgressFile(str(tmp_path), one, pairs=5).finish()
    assert read(tmp_path).share == pytest.approx(0.5)


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    assert read(tmp_path) == Progress(0.0, 0)


def test_shards_add_up(tmp_path: Path) -> None:
    first = ProgressFile(str(tmp_path), shard(0, 4), pairs=100)
    assert read(tmp_path) == Progress(0.0, 0)
    time.sleep(0.02)
    first.add(50)
    assert read(tmp_path) == Progress(0.125, 50)
    second = ProgressFile(str(tmp_path), shard(1, 4), pairs=10)
    time.sleep(0.02)
    second.add(10)
    second.finish()
    assert read(tmp_path) == Progress(0.375, 60)
    ProgressFile(str(tmp_path), shard(2, 4), pairs=0).finish()  # all reused: nothing scored, and done
    assert read(tmp_path) == Progress(0.625, 60)


def test_a_shard_that_is_tried_again_counts_once(tmp_path: Path) -> None:
    for _ in range(2):
        file = ProgressFile(str(tmp_path), shard(0, 1), pairs=8)
        file.add(8)
        file.finish()
    assert read(tmp_path) == Progress(1.0, 8)


def test_it_is_written_no_more_often_than_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 60.0)
    file = ProgressFile(str(tmp_path), shard(0, 1), pairs=8)
    file.add(4)
    assert read(tmp_path).scored == 0
    file.finish()
    assert read(tmp_path).scored == 4


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    file = ProgressFile(None, shard(0, 1), pairs=1)
    file.add(1)
    file.finish()
    assert not list(tmp_path.iterdir())


def test_the_watcher_shows_the_end_also_of_a_failure(tmp_path: Path) -> None:
    shown: list[Progress] = []
    folder = tmp_path / "new" / "folder"

    def fail() -> None:
        with watch(folder, shown.append):
            ProgressFile(str(folder), shard(0, 2), pairs=1).finish()
            time.sleep(0.1)
            assert shown
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert shown[-1] == Progress(0.5, 0)
    count = len(shown)
    time.sleep(0.05)
    assert len(shown) == count  # the thread is gone


def test_progress_that_cannot_be_written_or_read_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    lost = progress.ProgressFile(str(tmp_path / "file"), shard(0, 1), pairs=10)
    lost.add(5)
    lost.finish()
    shown: list[progress.Progress] = []
    with progress.watch(tmp_path / "file", shown.append):
        pass
    assert shown[-1] == progress.Progress(0.0, 0)
    folder = tmp_path / "progress"
    folder.mkdir()
    (folder / "0.json").write_text('{"total": 2, "sco')  # cut off by a full disk
    progress.ProgressFile(str(folder), shard(1, 2), pairs=10).finish()
    assert progress.read(folder).share == 0.5
