"""The output folder: staging, publishing, the pointer to the newest run, and the lock.

    _lock                                          locked while a run writes
    _staging/<run_id>/<table>/part-*.parquet       a run's files before it is published
    <table>/run_date=<D>/run_id=<R>/part-*.parquet published tables
    manifests/run_date=<D>/run_id=<R>/manifest.json
    latest.json                                    names the newest manifest; replaced last

A run that is killed at any time leaves `latest.json` at the previous run, whose files are not changed. Paths may be
local or of any file system that Beam supports (gs://, s3://).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator

from pipelines.storage.filesystem import (
    count_rows,
    exists,
    files,
    is_local,
    join,
    make_folder,
    move_folder,
    read_bytes,
    remove,
    write_bytes,
)
from rerank_core.errors import Locked, OutputError
from schemas.errors import ManifestError
from schemas.manifest import Manifest, from_json, to_json
from schemas.tables import TABLES


def staging(output: str, run_id: str) -> str:
    """Folder in which a run writes before it is published."""
    return join(output, "_staging", run_id)


def table_path(table: str, run_date: str, run_id: str) -> str:
    """Folder of a published table, relative to the output folder."""
    return f"{table}/run_date={run_date}/run_id={run_id}"


def manifest_path(run_date: str, run_id: str) -> str:
    """Path of a run's manifest, relative to the output folder."""
    return f"manifests/run_date={run_date}/run_id={run_id}/manifest.json"


def latest(output: str) -> Manifest | None:
    """Manifest of the newest published run; None if nothing was published yet.

    Raises:
        ManifestError: the pointer or the manifest it names is damaged.
    """
    pointer = join(output, "latest.json")
    if not exists(pointer):
        return None
    try:
        path = join(output, json.loads(read_bytes(pointer))["manifest"])
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{pointer} is damaged ({error}); point it at a manifest under manifests/"
        ) from None
    return read_manifest(path)


def open_run(output: str, run_id: str = "") -> Manifest:
    """Manifest of a published run: the one of that id, or the newest.

    Raises:
        ManifestError: nothing was published there, no such run, or a damaged manifest.
    """
    manifest = find_run(output, run_id) if run_id else latest(output)
    if manifest is None:
        raise ManifestError(
            f"no published run in {output}: {join(output, 'latest.json')} does not exist; name the output folder of a "
            "nightly job"
        )
    return manifest


def find_run(output: str, run_id: str) -> Manifest:
    """Manifest of one published run of an output folder.

    Raises:
        ManifestError: no such run, or its manifest is damaged.
    """
    valid = run_id.replace("-", "").isalnum()  # not a pattern
    paths = files(output, f"manifests/run_date=*/run_id={run_id}/manifest.json") if valid else []
    if not paths:
        raise ManifestError(f"no run {run_id!r} in {output}; look under {join(output, 'manifests')}")
    return read_manifest(paths[0])


def read_manifest(path: str) -> Manifest:
    """Read a manifest by its path."""
    try:
        return from_json(read_bytes(path).decode("utf-8"), name=path)
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {path}: {error}") from None


def table_files(output: str, manifest: Manifest, table: str) -> list[str]:
    """Parquet files of a published table, checked against the manifest.

    Raises:
        ManifestError: the table is not in the manifest, or has another number of files or rows.
    """
    info = manifest.tables.get(table)
    if info is None:
        raise ManifestError(f"the manifest of run {manifest.run_id} has no table {table!r}")
    paths = files(join(output, info.path), "part-*.parquet")
    rows = sum(count_rows(path) for path in paths)
    if (len(paths), rows) != (info.files, info.rows):
        raise ManifestError(
            f"{join(output, info.path)} has {rows} rows in {len(paths)} files, but its manifest says "
            f"{info.rows} in {info.files}: the run was damaged after it was published"
        )
    return paths


def publish(output: str, manifest: Manifest) -> None:
    """Move a verified run out of staging, write its manifest, then replace the pointer.

    A complete run of this id keeps its files, which a reader may have open: a night that reuses nothing has the same
    id, and so the same rows, whenever it is started again.
    """
    base = staging(output, manifest.run_id)
    path = manifest_path(manifest.run_date, manifest.run_id)
    if not _is_complete(output, path):
        for table in TABLES:  # a target may exist: a run of this id was killed before it wrote its manifest
            move_folder(join(base, table), join(output, manifest.tables[table].path))
    write_bytes(join(output, path), to_json(manifest).encode("utf-8"))
    pointer = {"run_id": manifest.run_id, "run_date": manifest.run_date, "manifest": path}
    write_bytes(join(output, "latest.json"), (json.dumps(pointer, indent=2) + "\n").encode("utf-8"))
    remove(base)


def _is_complete(output: str, path: str) -> bool:
    """Whether there is a manifest at this path, and all the files that it names."""
    try:
        earlier = read_manifest(join(output, path))
        for table in TABLES:
            table_files(output, earlier, table)
    except ManifestError:
        return False
    return True


@contextlib.contextmanager
def lock(output: str, run_id: str) -> Iterator[None]:
    """Lock the output folder for one run, and remove what killed runs left in staging.

    On a local folder the lock is the operating system's, and ends with the process. An object store has none: there a
    lock file names the run that writes, and must be removed by hand after a run was killed.

    Raises:
        Locked: another run is writing to it.
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
    if exists(path):
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
