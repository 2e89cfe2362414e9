"""The output folder as readers see it: published runs, and the pointer to the newest.

    latest.json                                              names the newest run's manifest
    _history.json                                            the runs that it named before
    runs/run_date=<D>/run_id=<R>/manifest.json               a run is published once its manifest stands here
    runs/run_date=<D>/run_id=<R>/<table>/part-*.parquet      its tables, which are never changed
    <table>/run_date=<D>/run_id=<R>/part-*.parquet           the newest run of each date, for readers that list folders
    _staging/<run_id>/<table>/part-*.parquet                 a run's files before it is published (in an object
                                                             store they wait in their own place for the manifest)
    _plan/run_date=<D>.json                                  the steps of a night, as they ended last
    _held/run_date=<D>/run_id=<R>/                           a whole run that was held back from publishing
    _lock                                                    locked while a run writes, and names it

Paths may be local or of any file system that Beam supports (gs://, s3://). What is read here is not trusted: a pointer
or a manifest names nothing outside of its own run's folder.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipelines.storage.filesystem import (
    exists,
    files,
    is_local,
    join,
    listing,
    read_bytes,
    read_if_any,
    sha256,
)
from pipelines.storage.object_stores import StoreError, unreadable
from pipelines.storage.parquet import check_footer
from rerank_core.config.toml import validate
from rerank_core.errors import ConfigError, OutputError
from schemas import layout
from schemas.errors import ManifestError
from schemas.layout import MANIFEST as MANIFEST  # names of the layout that all of storage takes from here
from schemas.layout import POINTER as POINTER
from schemas.layout import RUNS as RUNS
from schemas.layout import damaged_pointer, pointer_run
from schemas.layout import is_part as is_part
from schemas.layout import manifest_path as manifest_path
from schemas.layout import parse_run as parse_run
from schemas.layout import run_path as run_path
from schemas.layout import table_path as table_path
from schemas.manifest import Manifest

STAGING, HELD, HISTORY = "_staging", "_held", "_history.json"
T = TypeVar("T")


def staging(output: str, run_id: str) -> str:
    """Folder in which a run writes before it is published."""
    return join(output, STAGING, run_id)


def place(output: str, run_date: str, run_id: str, *, cut: bool) -> str:
    """Folder in which a night writes its files until it is published.

    An object store cannot rename, so there it is the place where they are published: they are seen once their manifest
    is there. Not so if that has a manifest, or if a late worker could write other bytes than those that were published.

    Args:
        cut: there is a deadline, and so the bytes are not decided by the run's id.
    """
    published = join(output, run_path(run_date, run_id))
    in_place = not is_local(output) and not cut and not exists(join(published, MANIFEST))
    return published if in_place else staging(output, run_id)


def held_path(run_date: str, run_id: str) -> str:
    """Folder of a run that is held back, relative to the output folder."""
    return f"{HELD}/run_date={run_date}/run_id={run_id}"


def utc(text: str) -> datetime.datetime:
    """A time in ISO 8601, such as a manifest's `created_at`; without a zone it is UTC.

    Raises:
        ValueError, OverflowError: it is no such time.
    """
    time = datetime.datetime.fromisoformat(text)
    return time.replace(tzinfo=datetime.UTC) if time.tzinfo is None else time.astimezone(datetime.UTC)


def run_ids(output: str, *, top: str = RUNS) -> list[tuple[str, str]]:
    """Sorted (date, id) of every run that has a manifest: published, or under `top = HELD` held back.

    Raises:
        OutputError: the folder has the layout of an earlier version.
    """
    refuse_earlier_layout(output)
    paths = files(join(output, top), f"run_date=*/run_id=*/{MANIFEST}")
    return sorted(run for path in paths if (run := parse_run("/".join(path.split("/")[-3:-1]))))


def latest(output: str) -> Manifest | None:
    """Manifest of the newest published run; None if nothing was published yet.

    Raises:
        ManifestError: the pointer or the manifest it names is damaged.
        OutputError: the folder has the layout of an earlier version.
    """
    refuse_earlier_layout(output)
    pointer = join(output, POINTER)
    check_inside(output, POINTER)
    try:
        if (data := read_if_any(pointer)) is None:
            return None
    except StoreError as error:
        raise unreadable(f"cannot read {pointer}: {error}", error) from None
    except OSError as error:
        raise damaged_pointer(pointer, error) from None
    return read_manifest(output, *pointer_run(data, name=pointer))


def open_run(output: str, run_id: str = "") -> Manifest:
    """Manifest of a published run: the one of that id, or the newest.

    Raises:
        ManifestError: nothing was published there, no such run, or a damaged manifest.
        OutputError: the folder has the layout of an earlier version.
    """
    manifest = find_run(output, run_id) if run_id else latest(output)
    if manifest is None:
        raise ManifestError(
            f"no published run in {output}: {join(output, POINTER)} does not exist; name the output folder of a "
            "nightly job"
        )
    return manifest


def check_output(output: str) -> None:
    """Refuse a folder that no night has written to, before a command locks it, which would make it.

    Raises:
        ManifestError: it has no run, published or held.
    """
    if not run_ids(output) and not run_ids(output, top=HELD):
        raise ManifestError(f"there is no run in {output}; name the output folder of a nightly job")


def find_run(output: str, run_id: str) -> Manifest:
    """Manifest of one published run of an output folder.

    Raises:
        ManifestError: no such run, or its manifest is damaged.
        OutputError: the folder has the layout of an earlier version.
    """
    runs = [run for run in run_ids(output) if run[1] == run_id]
    if not runs:
        raise ManifestError(
            f"no run {run_id!r} in {output}; `nightrank runs {output}` lists those that are there"
        )
    return read_manifest(output, *runs[0])


def read_manifest(output: str, run_date: str, run_id: str, *, held: bool = False) -> Manifest:
    """The manifest of a published run, or of one that is held back; its tables' paths are where the files are now.

    Raises:
        ManifestError: it cannot be read, is damaged, or says that it is of another run.
    """
    path = f"{held_path(run_date, run_id)}/{MANIFEST}" if held else manifest_path(run_date, run_id)
    name = join(output, path)
    check_inside(output, path)
    try:
        data = read_bytes(name)
    except OSError as error:
        raise unreadable(f"cannot read {name}: {error}", error) from None
    manifest = layout.parse_manifest(data, run_date, run_id, name=name)
    return moved(manifest, held_path(run_date, run_id)) if held else manifest


def moved(manifest: Manifest, path: str) -> Manifest:
    """The manifest with its tables in another folder of the output folder: `run_path` or `held_path`."""
    tables = {
        table: dataclasses.replace(info, path=f"{path}/{table}") for table, info in manifest.tables.items()
    }
    return dataclasses.replace(manifest, tables=tables)


def section(manifest: Manifest, kind: type[T], name: str) -> T:
    """A section of the configuration by which a run was made.

    Raises:
        ManifestError: the manifest holds something else.
    """
    try:
        return validate(
            kind, manifest.config.get(name, {}), name=f"the manifest of run {manifest.run_id}, [{name}]"
        )
    except ConfigError as error:
        raise ManifestError(str(error)) from None


def table_files(output: str, manifest: Manifest, table: str) -> list[str]:
    """Sorted Parquet files of a published table; their names and sizes are those in the manifest.

    Raises:
        ManifestError: the table is not in the manifest, or has other files.
    """
    info = manifest.tables.get(table)
    if info is None:
        raise ManifestError(f"the manifest of run {manifest.run_id} has no table {table!r}")
    folder = join(output, info.path)
    check_inside(output, info.path)
    try:
        found = {name: size for name, (size, _) in listing(folder).items() if is_part(name)}
    except OSError as error:
        raise unreadable(f"cannot read {folder}: {error}", error) from None
    expected = {name: file.bytes for name, file in info.files.items()}
    if found != expected:
        wrong = min(name for name in found | expected if found.get(name) != expected.get(name))
        is_, was = (f"{sizes[wrong]:,} bytes" if wrong in sizes else "no file" for sizes in (found, expected))
        raise ManifestError(
            f"{join(folder, wrong)} is not what its manifest says ({is_} instead of {was}): the run was damaged after "
            "it was published"
        )
    return [join(folder, name) for name in sorted(found)]


def check_run(output: str, manifest: Manifest, *, tables: Iterable[str] | None = None) -> None:
    """Check that a published run is what its manifest says, byte by byte.

    Args:
        tables: those to read; by default all.

    Raises:
        ManifestError: a file is missing, was added, or has another checksum; the first such is named.
    """
    known = {
        path: info.sha256
        for table in (manifest.tables if tables is None else tables)
        for path, info in zip(
            table_files(output, manifest, table),
            (info for _, info in sorted(manifest.tables[table].files.items())),
            strict=True,
        )
    }
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for path, found in zip(known, threads.map(_checksum, known), strict=True):
            if found != known[path]:
                raise ManifestError(
                    f"{path} has another checksum than its manifest says: it was damaged after it was published"
                )


def check_to_read(output: str, manifest: Manifest, table: str, *, every_byte: bool = False) -> list[str]:
    """The files of a published table, checked before a night builds on them: on a local disk byte by byte.

    In an object store, which keeps checksums of its own, they are checked by size and footer, so that a night does not
    begin with reading all of the last one. Pages have checksums that are checked as they are read.

    Args:
        output: the folder of the run.
        manifest: of the run.
        table: one of its tables.
        every_byte: in an object store, too.

    Raises:
        ManifestError: as of `check_run`.
    """
    infos = manifest.tables[table].files if table in manifest.tables else {}
    if every_byte or is_local(output) or any(info.footer_crc32 is None for info in infos.values()):
        check_run(output, manifest, tables=[table])
        return table_files(output, manifest, table)
    paths = table_files(output, manifest, table)
    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(check_footer, paths, (info for _, info in sorted(infos.items()))):
            pass
    return paths


def _checksum(path: str) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise unreadable(f"cannot read {path}: {error}", error) from None


def check_inside(output: str, path: str) -> None:
    """Refuse a path that a link leads out of a local output folder, or that is neither a file nor a folder.

    Raises:
        ManifestError: it is one.
    """
    if is_local(output):
        layout.check_inside(output, path)


def refuse_earlier_layout(output: str) -> None:
    """Raise for a folder in which an earlier version published.

    Raises:
        OutputError: it is one; the message names the remedy.
    """
    old = join(output, "manifests")
    if os.path.isdir(old) if is_local(output) else listing(old):
        raise OutputError(
            f"{output} has the layout of an earlier version ({old}); choose a new output.path, or move what "
            "is in it away"
        )
