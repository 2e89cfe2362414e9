"""What the file of a lock says."""

from __future__ import annotations

from typing import Any

from pipelines.storage.clients import Found
from pipelines.storage.filesystem import read_if_any
from pipelines.storage.object_stores import answered, store_of
from schemas.parsing import parse_json


def holder_of(path: str) -> str:
    """Who holds a lock, by its file: for messages."""
    data = read_if_any(path)
    if not data:
        return "unknown"
    record = _parse(data)
    if not record:
        return " ".join(data[:200].decode("utf-8", "replace").split()) or "unknown"
    text = f"{record.get('run')}, process {record.get('process')} on {record.get('host')} since {record.get('since')}"
    return text[:300]


def token_of(data: bytes | None) -> str | None:
    """The token of the process that wrote a lock's file; None if it has none."""
    token = _parse(data or b"").get("token")
    return token if isinstance(token, str) else None


def _parse(data: bytes) -> dict[str, Any]:
    try:
        record = parse_json(data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def read_object(path: str) -> Found | None:
    """A lock's object; None if there is none."""
    try:
        with answered(path):
            return store_of(path).get(path)
    except FileNotFoundError:
        return None
