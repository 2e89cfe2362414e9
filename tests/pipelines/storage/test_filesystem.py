"""Files of the output folder."""

from __future__ import annotations

import errno
import gzip
import io
import itertools
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.storage import filesystem
from pipelines.storage.object_stores import StoreError
from rerank_core.files import read_lines
from schemas.errors import ManifestError
from tests.conftest import Night
from tests.support.killed import count_changes, killed
from tests.support.object_store import MemoryFileSystem


def test_a_file_is_opened_as_it_is(tmp_path: Path) -> None:
    packed = gzip.compress(b"q1\td1\t1\n")
    (tmp_path / "a.tsv.gz").write_bytes(packed)
    with filesystem.open_binary(str(tmp_path / "a.tsv.gz")) as file:
        assert file.read() == packed
    assert list(read_lines(str(tmp_path / "a.tsv.gz"), opener=filesystem.open_binary)) == [b"q1\td1\t1"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "table" / "part-0.parquet"
    filesystem.write_bytes(str(path), b"old", durable=durable)
    for step in itertools.count():
        with killed(tmp_path, at=step):
            filesystem.write_bytes(str(path), b"new", durable=durable)
        if step == count_changes():
            break
        assert path.read_bytes() == b"old"
        assert all(filesystem.is_temporary(str(other)) for other in path.parent.iterdir() if other != path)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_only_folders_need_not_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    # Stands for network file systems that cannot flush folders, and for a disk that fails.
    real, refused = os.fsync, tmp_path / "folder"

    def fsync(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), refused.stat()):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    filesystem.write_bytes(str(tmp_path / "folder" / "file"), b"")
    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EINVAL:
        filesystem.flush(str(tmp_path))
        refused = tmp_path / "folder" / "file"
    with pytest.raises(OSError, match=os.strerror(number)):
        filesystem.flush(str(tmp_path))


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "folder").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        filesystem.write_bytes(str(tmp_path / "a"), b"file")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    filesystem.remove(str(tmp_path / "link"))
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]


def test_damaged_pages_are_named(night: Night, tmp_path: Path) -> None:
    path = next((night.output / night.manifest.tables["reranked"].path).iterdir())
    whole = path.read_bytes()
    (tmp_path / "part.parquet").write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(ManifestError, match=r"part\.parquet is damaged: "):
        filesystem.read_table(str(tmp_path / "part.parquet"))


def test_missing_files_are_none_and_removing_them_is_no_error(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert filesystem.files(nowhere) == []
    assert not filesystem.exists(nowhere)
    filesystem.remove(nowhere)


def test_a_file_that_comes_while_it_is_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, there = tmp_path / "latest.json", filesystem.exists

    def exists(name: str) -> bool:
        path.write_bytes(b"{}")
        return there(name)

    monkeypatch.setattr(filesystem, "exists", exists)
    assert filesystem.read_if_any(str(path)) == b"{}"


def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    assert filesystem.read_if_any(str(tmp_path / "none")) is None
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        filesystem.read_if_any(str(tmp_path / "folder"))


@pytest.mark.parametrize(
    "look",
    [
        lambda folder: filesystem.files(folder, "run_date=*/*"),
        lambda folder: filesystem.folders(folder, [], depth=2),
        lambda folder: list(filesystem.listing(folder)),
    ],
    ids=["files", "folders", "listing"],
)
def test_folders_come_and_go_while_they_are_listed(look: Callable[[str], list[str]], tmp_path: Path) -> None:
    (tmp_path / "run_date=1" / "stays").mkdir(parents=True)
    (tmp_path / "run_date=1" / "stays" / "file").touch()
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            for name in "abc":
                (tmp_path / f"run_date={name}").mkdir()
                (tmp_path / f"run_date={name}" / "file").touch()
            for name in "abc":
                shutil.rmtree(tmp_path / f"run_date={name}")

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        assert all(any("stays" in path for path in look(str(tmp_path))) for _ in range(1000))
    finally:
        stop.set()
        other.join()


def test_a_store_that_fails_while_a_file_is_sent_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        def write(self, data: object) -> int:
            raise RuntimeError("connection reset")

    monkeypatch.setattr(MemoryFileSystem, "create", lambda self, path, *how, **options: Broken())
    (tmp_path / "model.onnx").write_bytes(b"weights")
    with pytest.raises(StoreError, match="connection reset") as raised:
        filesystem.transfer(str(tmp_path / "model.onnx"), "mem://bucket/model.onnx")
    assert raised.value.filename == "mem://bucket/model.onnx"


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-1.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(ManifestError, match=r"part-1\.parquet is not a readable Parquet file"):
        filesystem.open_parquet(str(tmp_path / "part-1.parquet"))
