"""What a log format is: how its files are recognised, and how records are read from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.sources.local.spans import Span
from rerank_core.config.source import Log, LogFields
from rerank_core.errors import SourceError
from rerank_core.files import read_lines

Fields = Any
"""A record's fields by name; or a value of another type, which `parse_event` rejects; or a RecordError."""


class Head(NamedTuple):
    """What a file's format is recognised by."""

    parquet: bool
    line: bytes  # the first line that is not blank; b"" of Parquet


class Part(NamedTuple):
    """A record that is joined. A class of its own: Beam pickles it, where its coder of tuples fails at a surrogate."""

    record: str
    fields: Fields


class Join(NamedTuple):
    """How events are made of several records each, which may be in several files."""

    # The key of a record's event, and what of the record is used, which must not be nested deeply, as Beam pickles it;
    # None where the record is no part of an event. May raise RecordError.
    part: Callable[[Fields, Log], tuple[str, Fields] | None]
    merge: Callable[
        [Iterable[Part]], Iterator[Part]
    ]  # all parts of one event -> the event, and why others are none


class LogFormat(NamedTuple):
    """A kind of log files."""

    endings: tuple[str, ...]  # of the files that are read from a folder; each also with ".gz"
    recognises: Callable[[Head, Log], bool]
    records: Callable[[Path, Log], Iterator[tuple[int, Fields]]]  # numbered from 1, by line or by row
    columns: LogFields | None = (
        None  # where the format fixes them and [log.fields] must not; else as named there
    )
    join: Join | None = None
    # Where a large file may be cut: its spans, and the records of one, numbered as in the whole file.
    spans: Callable[[Path], list[Span]] | None = None
    records_of: Callable[[Path, Log, Span], Iterator[tuple[int, Fields]]] | None = None


def head(path: Path) -> Head:
    """The beginning of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return Head(parquet=True, line=b"")
    return Head(parquet=False, line=next((line for line in read_lines(path) if line.strip()), b""))


def check_columns(path: Path, names: Sequence[str], log: Log) -> None:
    """Refuse a table that lacks a column without which no event can be read.

    Raises:
        SourceError: the message names the column and the setting.
    """
    named = [("log.fields.query", log.fields.query), ("log.fields.timestamp", log.fields.timestamp)]
    for setting, name in (*named, *(("log.filter", name) for name in log.filter)):
        if name and name not in names:
            raise SourceError(
                f"{path} has no column {name!r}, which {setting} names; it has {', '.join(names)}"
            )


def wanted(log: Log) -> frozenset[str]:
    """Names of the columns that are read."""
    fields = log.fields
    names = (fields.timestamp, fields.query, fields.user, fields.clicks, fields.impressions, *log.filter)
    return frozenset(filter(None, names))
