"""Before a run writes to the output folder, under the lock: only what runs put there, and nothing that is not whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipelines.storage.filesystem import Stamp, files, folders, is_local, is_temporary, join, listing, remove
from pipelines.storage.runs import (
    HELD,
    MANIFEST,
    POINTER,
    RUNS,
    STAGING,
    is_part,
    parse_run,
    read_manifest,
    refuse_earlier_layout,
    table_files,
)
from pipelines.storage.vectors import FOLDER as VECTORS
from pipelines.storage.views import hide, show
from rerank_core.errors import OutputError, output_error
from schemas.errors import ManifestError
from schemas.tables import TABLES


def clean(output: str) -> None:
    """Bring the folder into the state in which only whole runs are seen, and nothing lies about.

    Removed: staging, run folders (published or held) without a manifest, temporary files, and what a table shows of a
    date that has no run.
    Made anew: what a table shows of a date, if it is missing, partial, or not of the newest run of that date.

    Raises:
        OutputError: the folder has an earlier layout, holds what no run put there, or cannot be written.
    """
    refuse_earlier_layout(output)
    try:
        if is_local(output):
            _check_folders(Path(output))
        _clean(output)
    except OSError as error:
        raise output_error(
            error,
            f"cannot clean up {output} after a run that was killed: {error}; see to the disk, or use another folder",
        ) from None


def _check_folders(output: Path) -> None:
    """Refuse to write or remove anything where a link leads, or where there is something else than a folder."""
    if (output / POINTER).is_dir():
        raise OutputError(f"{output / POINTER} is a folder; remove it, or choose another output.path")
    tops = [output / name for name in (STAGING, RUNS, HELD, VECTORS, *TABLES)]
    below = (path for top in tops[1:] if not top.is_symlink() for path in top.glob("run_date=*"))
    folders = [*tops, *(inner for path in below for inner in (path, *path.glob("run_id=*")))]
    for path in folders:
        if path.is_symlink():
            raise OutputError(
                f"{path} is a link, and a run removes and writes files there; put a folder in its place (output.path "
                "itself may be a link)"
            )
        if path.exists() and not path.is_dir():
            raise OutputError(
                f"{path} is a file, where a run needs a folder; remove it, or choose another output.path"
            )
    shown = [path for table in TABLES for path in (output / table).glob("run_date=*")]
    if shown and not (output / RUNS).exists():  # they would be removed, as of no run
        raise OutputError(
            f"{shown[0]} is of no run, since {output / RUNS} does not exist; choose a new output.path, or move "
            "the folders of tables away"
        )


def _clean(output: str) -> None:
    remove(join(output, STAGING))
    for path in files(output, "_*.tmp-*"):
        remove(path)
    held = listing(join(output, HELD))
    for folder in folders(join(output, HELD), held, depth=2):
        if f"{folder}/{MANIFEST}" not in held:
            remove(join(output, HELD, folder))
    listed = listing(join(output, RUNS))
    runs = _by_folder(listed, depth=2)
    newest = _newest_runs(output, runs, folders(join(output, RUNS), listed, depth=2))
    for table in TABLES:
        listed = listing(join(output, table))
        shown = _by_folder(listed, depth=1)
        for folder in folders(join(output, table), listed, depth=1):
            if folder.startswith("run_date=") and folder.removeprefix("run_date=") not in newest:
                hide(output, table, folder)
        for run_date, run_id in newest.items():
            below = runs[f"run_date={run_date}/run_id={run_id}"].items()
            parts = {
                name.removeprefix(f"{table}/"): stamp for name, stamp in below if name.startswith(f"{table}/")
            }
            expected = {f"run_id={run_id}/{name}": stamp for name, stamp in parts.items() if is_part(name)}
            if shown.get(f"run_date={run_date}", {}) != expected and _is_whole(
                output, table, run_date, run_id
            ):
                show(output, table, run_date, run_id)
    remove(join(output, STAGING))


def _is_whole(output: str, table: str, run_date: str, run_id: str) -> bool:
    """Whether a published table has its files; one that lost some is not shown in the place of links to them."""
    try:
        table_files(output, read_manifest(output, run_date, run_id), table)
    except ManifestError:
        return False
    return True


def _by_folder(stamps: dict[str, Stamp], *, depth: int) -> dict[str, dict[str, Stamp]]:
    """The files of each folder of that depth; those that hide are left out, as readers leave them out."""
    grouped: dict[str, dict[str, Stamp]] = {}
    for path, stamp in stamps.items():
        parts = path.split("/")
        if len(parts) > depth and not parts[-1].startswith("."):
            grouped.setdefault("/".join(parts[:depth]), {})["/".join(parts[depth:])] = stamp
    return grouped


def _newest_runs(output: str, runs: dict[str, dict[str, Stamp]], found: Iterable[str]) -> dict[str, str]:
    """Id of the newest published run by date; what is no published run is removed, and what is no part of one."""
    dates: dict[str, list[str]] = {}
    for folder in found:
        run = parse_run(folder)
        if run and MANIFEST in runs.get(folder, {}):
            dates.setdefault(run[0], []).append(run[1])
        elif folder.startswith("run_date="):
            remove(join(output, RUNS, folder))
        for name in filter(is_temporary, runs.get(folder, {})):
            remove(join(output, RUNS, folder, name))
    return {run_date: newest_of_date(output, run_date, ids) for run_date, ids in dates.items()}


def newest_of_date(output: str, run_date: str, ids: list[str]) -> str:
    """The run of a date that was published last; a damaged manifest is older than any other."""
    if len(ids) == 1:
        return ids[0]

    def created(run_id: str) -> tuple[str, str]:
        try:
            return read_manifest(output, run_date, run_id).created_at, run_id
        except ManifestError:
            return "", run_id

    return max(ids, key=created)
