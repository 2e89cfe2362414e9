"""JSON Lines: one event a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipelines.sources.local.formats.base import Fields, LogFormat
from pipelines.sources.local.spans import Span, byte_spans, numbered_lines
from rerank_core.config.source import Log
from rerank_core.files import read_lines
from rerank_core.values import RecordError, decode_json


def records(path: Path, log: Log) -> Iterator[tuple[int, Fields]]:
    """The value of each line that is not blank."""
    return _values(enumerate(read_lines(path), start=1))


def records_of(path: Path, log: Log, span: Span) -> Iterator[tuple[int, Fields]]:
    """The same of a span."""
    return _values(numbered_lines(path, span))


def _values(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, Fields]]:
    for number, line in lines:
        if line.strip():
            try:
                yield number, decode_json(line)
            except RecordError as error:
                yield number, error


FORMAT = LogFormat(
    endings=(".jsonl", ".json", ".ndjson"),
    recognises=lambda head, log: (
        not head.parquet
    ),  # the last that is asked: its lines are rejected one by one
    records=records,
    spans=byte_spans,
    records_of=records_of,
)
