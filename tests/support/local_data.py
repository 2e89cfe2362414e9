"""A small corpus, its embedded index, and files of lines, for the tests of the local source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.sources.local.bm25_index import LocalIndex, build_index
from schemas.records import LogEvent, Rejected

CORPUS: list[dict[str, Any]] = [
    {
        "_id": "who",
        "title": "The Who",
        "text": "An English rock band.",
        "sentences": ["An English rock band."],
    },
    {"_id": "band", "title": "Bands", "text": "A band plays songs; bands sing."},
    {"_id": "run", "title": "", "text": "She runs and was running."},
    {"_id": "cat", "title": "Cat", "text": "Cats sleep."},
]


def write_lines(path: Path, records: list[Any]) -> Path:
    """Strings are written as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def build(folder: Path, records: list[Any]) -> LocalIndex:
    build_index(write_lines(folder / "corpus.jsonl", records), folder / "index")
    return LocalIndex(folder / "index")


def outcomes(records: list[LogEvent | Rejected]) -> list[tuple[str, str]]:
    """What became of each record: its query, or why it was rejected."""
    return [(one.record, one.reason if isinstance(one, Rejected) else one.query) for one in records]
