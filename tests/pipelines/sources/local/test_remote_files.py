"""A log and an index in an object store: fetched once, the same rows, and nothing half-fetched is used."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.nightly.run import run
from pipelines.sources.local import source
from pipelines.sources.local.bm25_index import METADATA
from pipelines.sources.local.log_files import log_endings
from pipelines.sources.local.remote_files import addresses, copies, index_folder
from pipelines.sources.local.source import LocalSource
from pipelines.storage import filesystem
from rerank_core.config.source import Log
from rerank_core.errors import SourceError
from schemas.manifest import Manifest
from tests.conftest import MakeConfig
from tests.support.fakes import fake
from tests.support.object_store import MemoryFileSystem
from tests.support.tiny import DAY, Tiny

LOG, INDEX = "mem://bucket/logs", "mem://bucket/index"


@pytest.fixture
def store(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The tiny index in an object store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source._open_index.cache_clear()
    for path in sorted(tiny.index.rglob("*")):
        if path.is_file():
            MemoryFileSystem.objects[f"{INDEX}/{path.relative_to(tiny.index)}"] = path.read_bytes()
    yield MemoryFileSystem.objects
    MemoryFileSystem.objects.clear()
    source._open_index.cache_clear()


def fetched() -> list[Path]:
    """Folders of indices in the user's cache."""
    return sorted(Path(os.environ["XDG_CACHE_HOME"]).glob("nightrank/indices/*/*"))


def hashes(manifest: Manifest) -> dict[Any, str]:
    return {
        (name, file): info.sha256
        for name, table in manifest.tables.items()
        for file, info in table.files.items()
    }


def test_a_night_over_an_object_store_is_that_over_local_files(
    store: dict[str, bytes], make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = make_config(output={"path": str(tmp_path / "local")})
    here = run(local, run_date=DAY, load=fake())
    name = Path(local.source.log).name
    store[f"{LOG}/{name}"] = Path(local.source.log).read_bytes()
    fetches: list[str] = []
    transfer = filesystem.transfer
    monkeypatch.setattr(filesystem, "transfer", lambda one, to: (fetches.append(one), transfer(one, to)))
    there = make_config(source={"log": LOG, "index": INDEX}, output={"path": str(tmp_path / "there")})
    manifest = run(there, run_date=DAY, load=fake())
    assert manifest.run_id == here.run_id
    assert hashes(manifest) == hashes(here) != {}
    of_index = [one for one in fetches if one.startswith(INDEX)]
    assert len(of_index) == len(set(of_index)) == sum(one.startswith(INDEX) for one in store)
    assert not list(tmp_path.glob("nightrank-log-*"))


def test_files_of_a_log_are_found_as_locally(store: dict[str, bytes]) -> None:
    names = ("b.jsonl", "a.parquet", "c.jsonl.gz", "_d.jsonl", ".e.jsonl", "f.md", "below/g.jsonl")
    store.update({f"{LOG}/{name}": b"" for name in names})
    found = ["a.parquet", "b.jsonl", "c.jsonl.gz"]
    endings = log_endings(Log())
    assert addresses(LOG, endings) == addresses(f"{LOG}/", endings) == [f"{LOG}/{name}" for name in found]
    assert addresses(f"{LOG}/b.jsonl", endings) == [f"{LOG}/b.jsonl"]
    assert addresses(f"{LOG}/*.jsonl", endings)[-1] == f"{LOG}/b.jsonl"
    assert addresses(f"{LOG}/?.jsonl", endings) == [f"{LOG}/b.jsonl"]
    assert addresses(f"{LOG}/[a-b].*", endings) == [f"{LOG}/a.parquet", f"{LOG}/b.jsonl"]
    store[f"{LOG}/day[1].jsonl"] = b""
    assert addresses(f"{LOG}/day[1].jsonl", endings) == [f"{LOG}/day[1].jsonl"]
    assert addresses("mem://bucket/nothing", endings) == []


def test_a_store_that_fails_while_a_file_is_read_is_a_line(
    store: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise RuntimeError("connection reset\nby the peer")

    real = MemoryFileSystem.open
    monkeypatch.setattr(MemoryFileSystem, "open", lambda self, path, *how, **options: Broken())
    with (
        pytest.raises(SourceError, match=r"cannot fetch mem://b/a.jsonl .*connection reset by the peer"),
        copies(["mem://b/a.jsonl"]),
    ):
        pass
    monkeypatch.setattr(
        MemoryFileSystem,
        "open",
        lambda self, path, *how, **options: real(self, path) if path.endswith(METADATA) else Broken(),
    )
    with pytest.raises(SourceError, match=r"cannot fetch the index .*connection reset by the peer"):
        index_folder(INDEX)
    assert not fetched()


def test_one_process_of_a_machine_fetches_an_index(
    store: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = filesystem.transfer

    def with_lock(one: str, to: str) -> None:
        (path,) = Path(os.environ["XDG_CACHE_HOME"]).glob("nightrank/indices/*.lock")
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        transfer(one, to)

    monkeypatch.setattr(filesystem, "transfer", with_lock)
    assert index_folder(INDEX) == index_folder(INDEX)


def test_files_of_one_name_stay_apart(store: dict[str, bytes], tmp_path: Path) -> None:
    store |= {f"{LOG}/1/day.jsonl": b"one", f"{LOG}/2/day.jsonl": b"two"}
    (tmp_path / "own").write_bytes(b"three")
    with copies([f"{LOG}/1/day.jsonl", f"{LOG}/2/day.jsonl"]) as paths:
        assert [path.read_bytes() for path in paths] == [b"one", b"two"]
        assert {path.name for path in paths} == {"day.jsonl"}
    assert not any(path.exists() for path in paths)
    with copies([str(tmp_path / "own")]) as paths:
        assert paths == [tmp_path / "own"]
    assert (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("log", "index", "message"),
    [
        (LOG, INDEX, f"no query log at '{LOG}'"),
        (f"{LOG}/a.jsonl", "mem://bucket/none", f"no index at mem://bucket/none: it has no {METADATA}"),
    ],
)
def test_what_is_missing_is_named(
    store: dict[str, bytes], make_config: MakeConfig, log: str, index: str, message: str
) -> None:
    store[f"{LOG}/a.jsonl"] = b'{"timestamp": "2026-03-08T10:00:00Z", "query": "who wrote dune"}\n'
    if message.startswith("no query"):
        del store[f"{LOG}/a.jsonl"]
    with pytest.raises(SourceError, match=message):
        LocalSource(make_config(source={"log": log, "index": index})).describe()


def test_an_index_is_fetched_whole_or_not_at_all(
    store: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer, done = filesystem.transfer, []

    def breaks(one: str, to: str) -> None:
        if done:
            raise OSError(28, "No space left on device")
        done.append(one)
        transfer(one, to)

    monkeypatch.setattr(filesystem, "transfer", breaks)
    with pytest.raises(
        SourceError, match=r"cannot fetch the index .*No space left on device.*XDG_CACHE_HOME"
    ):
        index_folder(INDEX)
    assert not fetched()
    monkeypatch.setattr(filesystem, "transfer", transfer)
    whole = index_folder(INDEX)
    assert fetched() == [whole]


def test_an_index_that_is_replaced_meanwhile_is_not_used(
    store: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = filesystem.transfer

    def replaced(one: str, to: str) -> None:
        store[f"{INDEX}/{METADATA}"] = store[f"{INDEX}/{METADATA}"].replace(b'"documents"', b'"documentz"')
        transfer(one, to)

    monkeypatch.setattr(filesystem, "transfer", replaced)
    with pytest.raises(SourceError, match="was replaced while it was fetched"):
        index_folder(INDEX)
    assert not fetched()


def test_a_worker_that_finds_another_index_stops(
    store: dict[str, bytes], make_config: MakeConfig, tiny: Tiny
) -> None:
    night = LocalSource(make_config(source={"log": str(tiny.log), "index": INDEX}))
    night.describe()
    other = store[f"{INDEX}/{METADATA}"].replace(b'"fingerprint": "', b'"fingerprint": "0')
    assert other != store[f"{INDEX}/{METADATA}"]
    store[f"{INDEX}/{METADATA}"] = other
    with pytest.raises(SourceError, match="was replaced during the run"):
        night.candidates([], top_k=1)


@pytest.mark.parametrize("changed", ["one line more", "same size", "gone"])
def test_a_log_that_is_replaced_meanwhile_is_not_read(
    store: dict[str, bytes], make_config: MakeConfig, tmp_path: Path, changed: str
) -> None:
    """Rows of one log would be published under the fingerprint of another."""
    config = make_config(source={"log": LOG})
    of_dune, *others = Path(make_config().source.log).read_bytes().splitlines(keepends=True)
    store |= {f"{LOG}/a.jsonl": b"".join(others), f"{LOG}/b.jsonl": of_dune}

    def loaded() -> Any:  # after the source was described, before the workers read it
        if changed == "gone":
            store.pop(f"{LOG}/b.jsonl", None)
        else:
            one = b"\n" if changed == "one line more" else b""
            store[f"{LOG}/b.jsonl"] = of_dune.replace(b"Dune", b"Rune") + one
        return fake()()

    with pytest.raises(SourceError) as found:
        run(config, run_date=DAY, load=loaded)
    message = str(found.value)
    assert f"{LOG}/b.jsonl" in message
    assert "\n" not in message
    assert ("is not there any more" if changed == "gone" else "was replaced during the run") in message
    assert found.value.exit_code == (3 if changed == "gone" else 5)
    assert not list(Path(config.output.path).glob("runs/*"))
    assert not list(tmp_path.glob("nightrank-log-*"))


@pytest.mark.parametrize("name", ["day.jsonl", "day.jsonl.gz", "aol.tsv"])
def test_what_workers_fetch_is_compared_in_every_format(
    store: dict[str, bytes], make_config: MakeConfig, name: str
) -> None:
    lines = {
        "day.jsonl": b'{"timestamp": "2026-03-08T10:00:00Z", "query": "who wrote dune"}\n',
        "aol.tsv": b"AnonID\tQuery\tQueryTime\tItemRank\tClickURL\n7\tdune\t2026-03-08 10:00:00\t\t\n",
    }
    line = lines[name.removesuffix(".gz")]
    store[f"{LOG}/{name}"] = gzip.compress(line) if name.endswith(".gz") else line
    night = LocalSource(make_config(source={"log": f"{LOG}/{name}", "index": INDEX}))
    night.describe()
    with beam.Pipeline() as pipeline:
        assert_that(pipeline | night.events() | beam.combiners.Count.Globally(), equal_to([1]))
    store[f"{LOG}/{name}"] = b"\n" + store[f"{LOG}/{name}"]
    with pytest.raises(Exception, match="was replaced during the run"), beam.Pipeline() as pipeline:
        pipeline | night.events()


def test_earlier_indices_of_an_address_go_after_a_day(store: dict[str, bytes]) -> None:
    first = index_folder(INDEX)
    store[f"{INDEX}/{METADATA}"] += b"\n"
    second = index_folder(INDEX)
    assert fetched() == sorted([first, second])  # a night that runs may still open it
    os.utime(first, (0, 0))
    store[f"{INDEX}/{METADATA}"] += b"\n"
    third = index_folder(INDEX)
    assert fetched() == sorted([second, third])


def test_no_file_leaves_the_folder(store: dict[str, bytes]) -> None:
    store[f"{INDEX}/../../outside"] = b"x"
    with pytest.raises(SourceError, match="outside of its folder"):
        index_folder(INDEX)
    assert not fetched()
