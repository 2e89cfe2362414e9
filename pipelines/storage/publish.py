"""Publishing a verified run, under the lock.

A run appears whole: on a local file system it is completed in staging and moved by one rename, in an object store its
files are written in their places and its manifest last. Then come the folders by table, which show the newest run of
each date to readers that list folders, and last `latest.json`: started again before it moved, a killed night has the
same inputs, and so the same bytes. What a kill leaves undone or behind, the next run makes up for (clean.py), whichever
that is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from pathlib import Path

from pipelines.storage.filesystem import (
    flush,
    flush_names,
    is_local,
    join,
    listing,
    make_folder,
    move_files,
    put_folder,
    remove,
    remove_files,
    write_bytes,
)
from pipelines.storage.pointer import point
from pipelines.storage.runs import (
    HELD,
    MANIFEST,
    RUNS,
    STAGING,
    check_run,
    held_path,
    latest,
    read_manifest,
    run_ids,
    run_path,
    staging,
    utc,
)
from pipelines.storage.views import show
from rerank_core.errors import NightError
from schemas.errors import ManifestError
from schemas.manifest import Manifest, to_json
from schemas.tables import TABLES


def publish(output: str, manifest: Manifest, *, set_latest: bool = False) -> Manifest:
    """Publish a verified run from staging.

    A run of this id that was published before keeps its files, which a reader may have open, if they are what they
    should be byte by byte; else the run in staging takes its place. (A night that reuses nothing has the same id, and
    so the same rows, whenever it is started again.)

    Args:
        set_latest: move `latest.json` back to this run, even if it names a run of a later date.

    Returns:
        The manifest as it was published: `degraded` says whether a damaged copy was replaced.

    Raises:
        NightError: the output folder cannot be written.
    """
    try:
        manifest = _put_in_place(output, after_others(output, manifest))
        for table in TABLES:
            show(output, table, manifest.run_date, manifest.run_id)
        if set_latest or _is_newest(output, manifest):
            point(output, manifest)
        remove_run(output, held_path(manifest.run_date, manifest.run_id))
        remove(join(output, STAGING))
    except OSError as error:
        raise NightError(
            f"run {manifest.run_id} could not be published to {output}: {error.strerror or error}; see to the disk and "
            "start the night again"
        ) from None
    return manifest


def after_others(output: str, manifest: Manifest) -> Manifest:
    """The manifest with a time that is later than those of the other runs of its date, published or held.

    Of a date the newest run counts. If the clock was set back since an earlier one, its time alone would not say which.
    """
    created = utc(manifest.created_at)
    for top in (RUNS, HELD):
        for run_date, run_id in run_ids(output, top=top):
            if (run_date, run_id) == (manifest.run_date, manifest.run_id) or run_date != manifest.run_date:
                continue
            with contextlib.suppress(ManifestError, ValueError, OverflowError):
                other = read_manifest(output, run_date, run_id, held=top == HELD)
                created = max(created, utc(other.created_at) + datetime.timedelta(milliseconds=1))
    if created == utc(manifest.created_at):
        return manifest
    return dataclasses.replace(manifest, created_at=created.isoformat(timespec="milliseconds"))


def _is_newest(output: str, manifest: Manifest) -> bool:
    """Whether no run of a later date is the newest; what a damaged pointer names does not count."""
    try:
        current = latest(output)
    except ManifestError:
        return True
    return current is None or current.run_date <= manifest.run_date


def _put_in_place(output: str, manifest: Manifest) -> Manifest:
    path = run_path(manifest.run_date, manifest.run_id)
    if before := listing(join(output, path)):
        problem = _difference(output, manifest)
        if problem is None:
            write_bytes(join(output, path, MANIFEST), to_json(manifest).encode(), durable=True)
            return manifest
        if MANIFEST in before:
            said = f"the copy of this run that was published before was replaced: {problem}"
            manifest = dataclasses.replace(manifest, degraded={**manifest.degraded, "replaced": said})
    move_run(output, manifest, path)
    return manifest


def move_run(output: str, manifest: Manifest, path: str) -> None:
    """Move a run from staging to a folder of the output folder, where it appears whole; what was there is removed.

    Args:
        path: relative to the output folder, such as `run_path` gives.
    """
    base, target = staging(output, manifest.run_id), join(output, path)
    if not is_local(output):
        _move_objects(output, base, target, manifest)
        return
    _prune(base, manifest)
    write_bytes(join(base, MANIFEST), to_json(manifest).encode())
    flush(base)
    top = join(output, path.partition("/")[0])
    make_folder(top)
    flush_names(output)
    put_folder(base, target)
    flush_names(top)


def _move_objects(output: str, base: str, target: str, manifest: Manifest) -> None:
    """The same in an object store: the manifest is written last, when nothing but the tables' files is there."""
    written = listing(base)
    if not written:  # the run wrote to its own place
        base = join(output, run_path(manifest.run_date, manifest.run_id))
        written = listing(base)
    tables = [f"{table}/{name}" for table, info in manifest.tables.items() for name in info.files]
    if base != target:
        remove_run(output, target.removeprefix(output).strip("/"))
        move_files(base, target, tables)
    remove_files(base, written.keys() - tables)
    write_bytes(join(target, MANIFEST), to_json(manifest).encode())


def remove_run(output: str, path: str) -> None:
    """Remove a run's folder, if it exists, in such a way that a kill leaves a whole run or none that has a manifest."""
    if not is_local(output):
        remove(join(output, path, MANIFEST))
        remove(join(output, path))
        return
    folder = Path(output, path)
    if not folder.exists():
        return
    aside = Path(output, STAGING, f"{folder.name}.removed")
    remove(str(aside))
    make_folder(str(aside.parent))
    os.rename(folder, aside)
    flush_names(str(folder.parent))
    remove(str(aside))
    with contextlib.suppress(OSError):  # another run of the date is there
        folder.parent.rmdir()


def _difference(output: str, manifest: Manifest) -> str | None:
    """What keeps the published run of this id from being this very run; None if nothing does."""
    try:
        earlier = read_manifest(output, manifest.run_date, manifest.run_id)
        check_run(output, earlier)
    except ManifestError as error:
        return str(error)
    return None if earlier.tables == manifest.tables else "its files were others"


def _prune(base: str, manifest: Manifest) -> None:
    """Remove from a run's staging folder what is no part of it: tallies, progress, and what dead workers left."""
    for path in Path(base).iterdir():
        if path.name not in manifest.tables:
            remove(str(path))
    for table, info in manifest.tables.items():
        make_folder(join(base, table))
        for path in Path(base, table).iterdir():
            if path.name not in info.files:
                remove(str(path))
