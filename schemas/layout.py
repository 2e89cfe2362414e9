"""Where a published run lies in the output folder; the names that every reader and writer of one shares.

What a pointer or a manifest says is not trusted: it names nothing outside of its own run's folder.
"""

from __future__ import annotations

import os
import re
from typing import Any

from schemas.errors import ManifestError
from schemas.manifest import Manifest, from_json
from schemas.parsing import parse_json

POINTER, RUNS, MANIFEST = "latest.json", "runs", "manifest.json"
ID = r"[0-9A-Za-z]+(?:-[0-9A-Za-z]+)*"
_RUN = re.compile(rf"run_date=([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})/run_id=({ID})")


def run_path(run_date: str, run_id: str) -> str:
    """Folder of a published run, relative to the output folder."""
    return f"{RUNS}/run_date={run_date}/run_id={run_id}"


def table_path(table: str, run_date: str, run_id: str) -> str:
    """Folder of a published table, relative to the output folder."""
    return f"{run_path(run_date, run_id)}/{table}"


def manifest_path(run_date: str, run_id: str) -> str:
    """Path of a run's manifest, relative to the output folder."""
    return f"{run_path(run_date, run_id)}/{MANIFEST}"


def parse_run(folder: str) -> tuple[str, str] | None:
    """The (date, id) of the run in a folder `run_date=<D>/run_id=<R>`; None for any other."""
    found = _RUN.fullmatch(folder)
    return (found[1], found[2]) if found else None


def is_part(name: str) -> bool:
    """Whether a file of a table's folder is one that readers read."""
    return "/" not in name and name.startswith("part-") and name.endswith(".parquet")


def pointer_run(data: bytes, *, name: str) -> tuple[str, str]:
    """The (date, id) of the run that a pointer's bytes name.

    Args:
        name: the pointer's path, for messages.

    Raises:
        ManifestError: it is damaged, or names anything else than a run's manifest.
    """
    try:
        named: Any = parse_json(data)["manifest"]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_pointer(name, error) from None
    named = named if isinstance(named, str) else type(named).__name__
    run = parse_run(named.removeprefix(f"{RUNS}/").removesuffix(f"/{MANIFEST}"))
    if run is None or named != manifest_path(*run):
        raise ManifestError(
            f"{name} names {named!r:.100} and no manifest {RUNS}/run_date=.../run_id=.../{MANIFEST}; point it at one"
        )
    return run


def damaged_pointer(name: str, error: Exception) -> ManifestError:
    """The error of a pointer that cannot be read."""
    return ManifestError(f"{name} is damaged ({error}); point it at a manifest under {RUNS}/, or remove it")


def parse_manifest(data: bytes, run_date: str, run_id: str, *, name: str) -> Manifest:
    """The manifest of a run from its bytes.

    Args:
        name: its path, for messages.

    Raises:
        ManifestError: it is damaged, or says that it is of another run.
    """
    try:
        manifest = from_json(data.decode("utf-8"), name=name)
    except UnicodeDecodeError as error:
        raise ManifestError(f"cannot read {name}: {error}") from None
    places = {table: table_path(table, run_date, run_id) for table in manifest.tables}
    named = {table: info.path for table, info in manifest.tables.items()}
    files = (file for info in manifest.tables.values() for file in info.files)
    if (
        (manifest.run_date, manifest.run_id) != (run_date, run_id)
        or places != named
        or not all(map(is_part, files))
    ):
        raise ManifestError(
            f"{name} names other folders than its own; do not use its run, and publish it again"
        )
    return manifest


def check_inside(output: str, path: str) -> None:
    """Refuse a path that a link leads out of a local output folder, or that is neither a file nor a folder.

    Raises:
        ManifestError: it is one.
    """
    base, full = os.path.realpath(output), os.path.join(output, path)
    real = os.path.realpath(full)
    if os.path.commonpath([base, real]) != base:
        raise ManifestError(f"{full} leads out of {output} by a link; put a folder in its place")
    if os.path.exists(real) and not os.path.isfile(real) and not os.path.isdir(real):
        raise ManifestError(f"{full} is neither a file nor a folder; remove it")  # reading may not end


def first_id(number: int, total: int) -> str:
    """Lowest query_id of a file of `queries`; of the file after the last, a text above every id."""
    return f"{-(-(number << 64) // total):016x}" if number < total else "g"


def file_of_id(query_id: str, total: int) -> int:
    """Number of the file of `queries` that holds an id."""
    return int(query_id, 16) * total >> 64
