"""The lock of an output folder."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from pipelines.storage.lock import _remote_lock, lock
from rerank_core import errors


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    output = str(tmp_path / "output")
    with lock(output, "first"):
        with (
            pytest.raises(errors.Locked, match=r"another run \(first, process \d+\) is writing to"),
            lock(output, "second"),
        ):
            pass
        assert "first" in (tmp_path / "output" / "_lock").read_text()  # the loser leaves the holder's name
    with lock(output, "third"):
        assert (tmp_path / "output" / "_lock").read_text().startswith("third,")


@pytest.mark.parametrize("path", ["file/output", "file"])
def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(errors.OutputError, match="cannot write to output.path .*; choose another folder"),
        lock(str(tmp_path / path), "run"),
    ):
        pass


@pytest.mark.parametrize("kind", ["link", "dangling link", "second name", "folder", "pipe"])
def test_nothing_is_overwritten_through_the_lock(tmp_path: Path, kind: str) -> None:
    path, precious = tmp_path / "_lock", tmp_path / "precious"
    precious.write_text("precious")
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nosuch")
    elif kind == "second name":
        path.hardlink_to(precious)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(errors.OutputError, match="_lock is|cannot write"), lock(str(tmp_path), "run"):
        pass
    assert precious.read_text() == "precious"
    assert not (tmp_path / "nosuch").exists()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(errors.OutputError, match="cannot lock .*_lock: No locks available; choose"),
        lock(str(tmp_path), "run"),
    ):
        pass


def test_a_remote_lock_stays_until_it_is_given_back(tmp_path: Path) -> None:
    path = str(tmp_path / "_lock")
    with _remote_lock(path, "first"):
        with pytest.raises(errors.Locked, match=f"first.*remove {path}"), _remote_lock(path, "second"):
            pass
        assert Path(path).read_text() == "first"
    assert not Path(path).exists()
