"""Runs that are whole but were held back from publishing: kept beside the published ones until somebody decides.

No reader meets them: they are in no table's folder, and nothing that looks for published runs finds them. A later
publication of the same run, and retention, remove them.
"""

from __future__ import annotations

import dataclasses
import datetime

from pipelines.storage.clean import clean
from pipelines.storage.filesystem import copy_files, join, remove
from pipelines.storage.lock import lock
from pipelines.storage.publish import after_others, move_run, publish
from pipelines.storage.runs import (
    HELD,
    STAGING,
    check_output,
    check_run,
    find_run,
    held_path,
    moved,
    read_manifest,
    run_ids,
    run_path,
    staging,
)
from rerank_core.errors import NightError
from schemas.errors import ManifestError
from schemas.manifest import Manifest

__all__ = ["find_held", "held_path", "held_runs", "hold", "release"]


def hold(output: str, manifest: Manifest) -> str:
    """Move a verified run from staging to where held runs are kept; one of this id that is there is replaced.

    Args:
        manifest: with the paths that the tables have once the run is published.

    Returns:
        The run's folder, relative to the output folder.

    Raises:
        NightError: the output folder cannot be written.
    """
    path = held_path(manifest.run_date, manifest.run_id)
    try:
        move_run(output, after_others(output, manifest), path)
        remove(join(output, STAGING))
    except OSError as error:
        raise NightError(
            f"run {manifest.run_id} could not be kept in {join(output, path)}: {error.strerror or error}; see to the "
            "disk and start the night again"
        ) from None
    return path


def held_runs(output: str) -> list[Manifest]:
    """Manifests of the runs that are held back, by date and id; their tables' paths are where the files are now.

    Raises:
        ManifestError: a manifest is damaged.
        OutputError: the folder has the layout of an earlier version.
    """
    return [read_manifest(output, *run, held=True) for run in run_ids(output, top=HELD)]


def find_held(output: str, run_id: str) -> Manifest | None:
    """Manifest of a run that is held back, as `held_runs` gives it; None if there is no such run.

    Raises:
        ManifestError: it is damaged.
        OutputError: the folder has the layout of an earlier version.
    """
    found = [run for run in run_ids(output, top=HELD) if run[1] == run_id]
    return read_manifest(output, *found[0], held=True) if found else None


def release(output: str, run_id: str, *, set_latest: bool = False) -> Manifest:
    """Publish a run that was held back, as a night publishes its own. Started again after a kill, it completes that.

    Args:
        set_latest: move `latest.json` to it, even if it names a run of a later date.

    Returns:
        The manifest as it was published.

    Raises:
        ManifestError: no such run, or it was damaged since; it stays where it is.
        Locked, OutputError: the output folder cannot be written now.
        NightError: the disk refuses it.
    """
    check_output(output)
    with lock(output, run_id) as locked:
        clean(output)
        held = find_held(output, run_id)
        if held is None:
            raise ManifestError(_not_held(output, run_id))
        check_run(output, held)
        # Copied (by links, on a local file system), so that the held run is there until it is published.
        for table, info in held.tables.items():
            target = join(staging(output, run_id), table)
            copy_files(join(output, info.path), target, info.files)
        locked.check()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        manifest = moved(held, run_path(held.run_date, held.run_id))
        return publish(output, dataclasses.replace(manifest, created_at=now), set_latest=set_latest)


def _not_held(output: str, run_id: str) -> str:
    try:
        find_run(output, run_id)
    except ManifestError:
        known = ", ".join(held_id for _, held_id in run_ids(output, top=HELD)) or "none"
        return f"no run {run_id!r} is held back in {output}; those held back are: {known}"
    return (
        f"run {run_id} is not held back: it is published; `nightrank rollback {output} --run-id {run_id}` lets "
        "latest.json name it"
    )
