"""`latest.json`, which names the run that is served, and `_history.json`: the runs that it named before, until when."""

from __future__ import annotations

import datetime
import json
from typing import Any

from pipelines.storage.filesystem import join, read_if_any, write_bytes
from pipelines.storage.runs import HISTORY, POINTER, latest, manifest_path, utc
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from schemas.parsing import parse_json

MOST = 200
"""Entries that the history keeps: more nights than any reader holds a run open."""


def point(output: str, manifest: Manifest) -> None:
    """Let `latest.json` name a published run, under the lock.

    The history is written first: a kill in between leaves an entry of a run that is still served, which is never
    removed anyway.

    Raises:
        OSError: it cannot be written.
    """
    try:
        before = latest(output)
    except ManifestError:  # what a damaged pointer named is not known
        before = None
    if before and before.run_id != manifest.run_id:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        entries = [*_entries(output), {"run_id": before.run_id, "until": now}][-MOST:]
        write_bytes(join(output, HISTORY), _json({"served": entries}), durable=True)
    path = manifest_path(manifest.run_date, manifest.run_id)
    pointer = {"run_id": manifest.run_id, "run_date": manifest.run_date, "manifest": path}
    write_bytes(join(output, POINTER), _json(pointer), durable=True)


def served_until(output: str) -> dict[str, datetime.datetime]:
    """When `latest.json` last stopped naming a run (UTC), by run id."""
    return {entry["run_id"]: utc(entry["until"]) for entry in _entries(output)}


def _entries(output: str) -> list[dict[str, Any]]:
    """The entries of the history, the latest last; of a file that is damaged, those that can be read."""
    path = join(output, HISTORY)
    try:
        data = read_if_any(path)
        found: Any = parse_json(data)["served"] if data is not None else []
        return [entry for entry in found if _is_entry(entry)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _is_entry(entry: Any) -> bool:
    try:
        return isinstance(entry["run_id"], str) and bool(utc(entry["until"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return False


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
