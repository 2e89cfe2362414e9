"""The output folder: staging, publishing, the pointer to the newest run, and the lock.

    _lock                                          held while a run writes
    _staging/<run_id>/<table>/part-*.parquet       what a run writes; worthless until published
    <table>/run_date=<D>/run_id=<R>/part-*.parquet what readers read
    manifests/run_date=<D>/run_id=<R>/manifest.json
    latest.json                                    names the newest manifest, swapped in last

A run killed anywhere leaves `latest.json` on the run before it, whose files nothing touches. Paths may be local
or any that Beam's filesystems know (gs://, s3://).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from schemas.manifest import Manifest, ManifestError, from_json, to_json
from schemas.tables import TABLES


class OutputError(ValueError):
    """The output folder cannot be used; the message names it and the remedy."""


class Locked(OutputError):
    """Another run is writing to the output folder."""


def join(*parts: str) -> str:
    """A path of this folder's file system."""
    return str(FileSystems.join(*parts))


def is_local(path: str) -> bool:
    """Whether the path is on this machine's file system."""
    return "://" not in path


def write_bytes(path: str, data: bytes) -> None:
    """Write a file so that no reader ever sees half of it: a temporary name first, then a rename.

    Arrow and Spark pass over names that begin with "_", should a worker be killed in between.
    """
    folder, slash, name = path.rpartition("/")
    temporary = f"{folder}{slash}_{name}.tmp-{uuid.uuid4().hex}"
    make_folder(folder)
    with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)
    FileSystems.rename([temporary], [path])


def read_bytes(path: str) -> bytes:
    """The bytes of a file."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return bytes(file.read())


def open_text(path: str) -> TextIO:
    """A UTF-8 text file of any file system that Beam knows."""
    return io.TextIOWrapper(FileSystems.open(path), encoding="utf-8-sig")


def make_folder(path: str) -> None:
    """Make a folder and its parents; one that is there already is fine."""
    if is_local(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def files(folder: str, pattern: str = "*") -> list[str]:
    """Paths of the files of a folder that match, sorted; none where the folder is missing."""
    if is_local(folder):  # Beam takes the folder for a pattern too, and cannot quote "[" or "*" in it
        return sorted(str(path) for path in Path(folder).glob(pattern))
    matched = FileSystems.match([join(folder, pattern)])[0].metadata_list
    return sorted(found.path for found in matched)


def size(path: str) -> int:
    """Bytes of a file."""
    return int(FileSystems.get_filesystem(path).size(path))


def remove(path: str) -> None:
    """Remove a file or a whole folder, if it is there."""
    if is_local(path):
        local = Path(path)
        if local.is_dir():
            shutil.rmtree(local)
        else:
            local.unlink(missing_ok=True)
    elif FileSystems.exists(path) or files(path):
        FileSystems.delete([path])


def staging(output: str, run_id: str) -> str:
    """Folder in which a run writes before it is published."""
    return join(output, "_staging", run_id)


def table_path(table: str, run_date: str, run_id: str) -> str:
    """Folder of a published table, relative to the output folder."""
    return f"{table}/run_date={run_date}/run_id={run_id}"


def manifest_path(run_date: str, run_id: str) -> str:
    """Place of a run's manifest, relative to the output folder."""
    return f"manifests/run_date={run_date}/run_id={run_id}/manifest.json"


def latest(output: str) -> Manifest | None:
    """Manifest of the newest published run; None where nothing was published yet.

    Raises:
        ManifestError: the pointer or the manifest it names is damaged.
    """
    pointer = join(output, "latest.json")
    if not FileSystems.exists(pointer):
        return None
    try:
        named = join(output, json.loads(read_bytes(pointer))["manifest"])
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{pointer} is damaged ({error}); point it at a manifest under manifests/"
        ) from None
    return read_manifest(named)


def find_run(output: str, run_id: str) -> Manifest:
    """Manifest of one published run of an output folder.

    Raises:
        ManifestError: no such run, or its manifest is damaged.
    """
    named = run_id.replace("-", "").isalnum()  # and no pattern
    found = files(output, f"manifests/run_date=*/run_id={run_id}/manifest.json") if named else []
    if not found:
        raise ManifestError(f"no run {run_id!r} in {output}; look under {join(output, 'manifests')}")
    return read_manifest(found[0])


def read_manifest(path: str) -> Manifest:
    """Read a manifest by its path."""
    try:
        return from_json(read_bytes(path).decode("utf-8"), name=path)
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {path}: {error}") from None


def table_files(output: str, manifest: Manifest, table: str) -> list[str]:
    """Parquet files of a published table, checked against what the manifest says of it.

    Raises:
        ManifestError: files are missing or hold another number of rows.
    """
    info = manifest.tables.get(table)
    if info is None:
        raise ManifestError(f"the manifest of run {manifest.run_id} names no table {table!r}")
    found = files(join(output, info.path), "part-*.parquet")
    rows = sum(count_rows(path) for path in found)
    if (len(found), rows) != (info.files, info.rows):
        raise ManifestError(
            f"{join(output, info.path)} holds {rows} rows in {len(found)} files, but its manifest says "
            f"{info.rows} in {info.files}: the run was damaged after it was published"
        )
    return found


def count_rows(path: str) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(open_parquet(path).metadata.num_rows)


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns."""
    return open_parquet(path).read(columns=columns, use_threads=False)


def open_parquet(path: str) -> pq.ParquetFile:
    """A Parquet file of any file system that Beam knows.

    It is read into memory first: a shard's file is small, and Arrow's reading threads, left with a Python file,
    can bring the interpreter down when it exits.

    Raises:
        ManifestError: not a whole Parquet file.
    """
    try:
        data = pa.BufferReader(read_bytes(path))
        return pq.ParquetFile(data, pre_buffer=False, page_checksum_verification=True)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} is not a readable Parquet file: {error}") from None


def publish(output: str, manifest: Manifest) -> None:
    """Move a verified run from staging to its place, write its manifest, then swap the pointer.

    A run of this id that stands there whole keeps its files, which a reader may have open: a night that reuses
    nothing has the same id, and so the same rows, whenever it is started again.
    """
    base = staging(output, manifest.run_id)
    place = manifest_path(manifest.run_date, manifest.run_id)
    if not _is_whole(output, place):
        for table in TABLES:
            _move(output, join(base, table), join(output, manifest.tables[table].path))
    write_bytes(join(output, place), to_json(manifest).encode("utf-8"))
    pointer = {"run_id": manifest.run_id, "run_date": manifest.run_date, "manifest": place}
    write_bytes(join(output, "latest.json"), (json.dumps(pointer, indent=2) + "\n").encode("utf-8"))
    remove(base)


def _is_whole(output: str, place: str) -> bool:
    """Whether a run has a manifest at this place, and all the files that it names."""
    try:
        earlier = read_manifest(join(output, place))
        for table in TABLES:
            table_files(output, earlier, table)
    except ManifestError:
        return False
    return True


def _move(output: str, source: str, target: str) -> None:
    remove(target)  # left by a run of the same id that was killed between its first move and its manifest
    if is_local(output):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
    else:
        parts = files(source, "part-*.parquet")
        FileSystems.rename(parts, [join(target, part.rpartition("/")[2]) for part in parts])


@contextlib.contextmanager
def lock(output: str, run_id: str) -> Iterator[None]:
    """Hold the output folder for one run, and clear what killed runs left in staging.

    On a local folder the operating system holds the lock, so that a killed run leaves none behind. An object
    store has no such thing: there a lock file says who writes, and after a killed run a person removes it.

    Raises:
        Locked: another run holds it.
        OutputError: the folder cannot be written.
    """
    path = join(output, "_lock")
    with _local_lock(output, path, run_id) if is_local(output) else _remote_lock(path, run_id):
        remove(join(output, "_staging"))
        yield


@contextlib.contextmanager
def _local_lock(output: str, path: str, run_id: str) -> Iterator[None]:
    import fcntl  # not on Windows, where this job does not run

    try:
        make_folder(output)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  closed below, with the lock
    except OSError as error:
        raise OutputError(
            f"cannot write to output.path {output}: {error.strerror}; choose another folder"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Locked(
                f"another run ({holder}) is writing to {output}; wait for it or use another folder"
            ) from None
        file.truncate(0)
        file.write(f"{run_id}, process {os.getpid()}")
        file.flush()
        yield


@contextlib.contextmanager
def _remote_lock(path: str, run_id: str) -> Iterator[None]:
    if FileSystems.exists(path):
        holder = read_bytes(path).decode("utf-8", "replace")
        raise Locked(
            f"another run ({holder}) is writing here, or was killed; if none is running, remove {path}"
        )
    write_bytes(path, run_id.encode("utf-8"))
    if read_bytes(path).decode("utf-8") != run_id:
        raise Locked(f"another run took {path} at the same moment; start this one again later")
    try:
        yield
    finally:
        remove(path)
