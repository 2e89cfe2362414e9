"""Query logs in files: which files a log has, their formats, and the events in them.

Every record is read, or rejected by file and line.
"""

from __future__ import annotations

import dataclasses
import difflib
import glob
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from pipelines.sources.local.formats import FORMATS
from pipelines.sources.local.formats.base import Fields, Join, Part, head
from pipelines.sources.local.spans import Span
from rerank_core.config.source import Log, LogFields
from rerank_core.errors import ConfigError, SourceError
from rerank_core.files import UnreadableFile
from rerank_core.querylog.events import parse_event, passes_filter
from rerank_core.text import fingerprint, utf8
from rerank_core.values import RecordError
from schemas.records import LogEvent, Rejected


def check_format(log: Log) -> None:
    """Refuse a format that is not known, and columns for one that fixes them.

    Raises:
        ConfigError: the message names the nearest format, or the remedy.
    """
    if log.format not in (known := ["auto", *FORMATS]):
        nearest = difflib.get_close_matches(log.format, known, n=1, cutoff=0)[0]
        choice = f"the nearest one is {nearest!r} of {', '.join(known)}"
        raise ConfigError(f"log.format = {log.format!r} is no log format; {choice}")
    if log.format != "auto" and FORMATS[log.format].columns and log.fields != LogFields():
        raise ConfigError(
            f"log.format = {log.format!r} fixes the names of the columns: remove [log.fields], or set "
            "log.format = 'tsv' or 'jsonl'"
        )


def log_files(path: str, log: Log) -> list[Path]:
    """Files of a log, sorted: a file, the log files of a folder (not of its subfolders), or those of a glob.

    Raises:
        SourceError: there are none.
    """
    if "://" in path:
        raise SourceError(f"only local files can be read here, not {path}: copy the log to this machine")
    endings = log_endings(log)
    if Path(path).is_dir():
        files = [f for f in Path(path).iterdir() if f.name.endswith(endings) and f.name[0] not in "._"]
    else:
        files = [
            Path(found) for found in ([path] if Path(path).is_file() else glob.glob(path, recursive=True))
        ]
    files = sorted(file for file in files if file.is_file())
    if not files:
        raise SourceError(no_log(path, log))
    return files


def no_log(path: str, log: Log) -> str:
    """The message where there is no file of a log."""
    expected = f"give a file, or a folder or a glob of {', '.join(log_endings(log))} files"
    return f"no query log at {path!r} (source.log); {expected}"


def log_endings(log: Log) -> tuple[str, ...]:
    """How the names of log files end in a folder."""
    formats = FORMATS.values() if log.format == "auto" else [FORMATS[log.format]]
    # Names that say nothing about a log are taken only where the format is given.
    plain = {ending for known in formats for ending in known.endings} - (
        {".txt"} if log.format == "auto" else set()
    )
    return tuple(sorted(plain | {f"{ending}.gz" for ending in plain}))


def format_of(path: Path, log: Log) -> str:
    """The format of a file: the configured one, or that by which it is recognised.

    Raises:
        SourceError: the file cannot be read.
    """
    if log.format != "auto":
        return log.format
    try:
        start = head(path)
    except OSError as error:
        raise SourceError(_unreadable(path, error)) from None
    formats = {
        name: known for name, known in FORMATS.items() if not known.columns or log.fields == LogFields()
    }
    return next(name for name, known in formats.items() if known.recognises(start, log))


def together(files: Iterable[Path], log: Log) -> list[list[Path]]:
    """The files that must be read together: those of a format that joins records; every other one alone.

    Raises:
        SourceError: a file cannot be read.
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        name = format_of(file, log)
        groups.setdefault(name if FORMATS[name].join else str(file), []).append(file)
    return list(groups.values())


def read_events(
    path: Path, log: Log, *, beside: Sequence[Path] = (), span: Span | None = None
) -> Iterator[LogEvent | Rejected]:
    """Stream the events of one file; those of a format that joins records are held in memory.

    Args:
        path: the file. Records are named "NAME:LINE" (Parquet: "NAME:ROW"), from 1. Blank lines are skipped.
        log: the format, the names of the columns, and the filter by which other events are skipped.
        beside: other files that are read together with it; see `together`.
        span: the part of the file that is read; None: all. Of a format that joins records it is not used.

    Yields:
        A LogEvent or Rejected for each record: bad_utf8, bad_json, bad_row, or a reason of `parse_event`.

    Raises:
        SourceError: the file cannot be read to its end, or lacks a configured column.
    """
    name = format_of(path, log)
    if join := FORMATS[name].join:
        yield from _joined((path, *beside), name, log, join)
    else:
        for record, raw in read_records(path, name, log, span=span):
            yield from to_event(record, raw, name, log)


def read_records(
    path: Path, name: str, log: Log, *, span: Span | None = None
) -> Iterator[tuple[str, Fields]]:
    """The records of a file of the format `name`, or of a span of it: each with its own name, nothing checked.

    Raises:
        SourceError: as `read_events`.
    """
    file, form, log = utf8(path.name), FORMATS[name], _with_columns(log, name)
    try:
        records = form.records_of(path, log, span) if span and form.records_of else form.records(path, log)
        for number, raw in records:
            yield f"{file}:{number}", raw
    except (pa.ArrowException, OSError) as error:
        raise SourceError(_unreadable(path, error)) from None


def to_event(record: str, raw: Fields, name: str, log: Log) -> Iterator[LogEvent | Rejected]:
    """The event that a record of the format `name` is, or why it is none; nothing where log.filter excludes it."""
    try:
        if isinstance(raw, RecordError):
            raise raw
        if passes_filter(raw, log.filter):
            yield parse_event(raw, _with_columns(log, name).fields, record=record)
    except RecordError as error:
        yield rejected(record, error)


def rejected(record: str, error: RecordError) -> Rejected:
    """A record of a log that is no event."""
    return Rejected("ReadQueryLog", "event", record, error.reason, error.detail)


def keyed(record: str, raw: Fields, join: Join, log: Log) -> Iterator[tuple[str, Part] | Rejected]:
    """A record under the key by which it is joined, or why it has none; nothing where it is no part of an event."""
    try:
        found = join.part(raw, log)
    except RecordError as error:
        yield rejected(record, error)
    else:
        if found is not None:
            key, fields = found
            yield key, Part(record, fields)


def _joined(files: Iterable[Path], name: str, log: Log, join: Join) -> Iterator[LogEvent | Rejected]:
    groups: defaultdict[str, list[Part]] = defaultdict(list)
    for record, raw in (one for file in files for one in read_records(file, name, log)):
        for found in keyed(record, raw, join, log):
            if isinstance(found, Rejected):
                yield found
            else:
                groups[found[0]].append(found[1])
    for group in groups.values():
        yield from merged(group, name, log)


def merged(group: Iterable[Part], name: str, log: Log) -> Iterator[LogEvent | Rejected]:
    """The events of the records of one key."""
    join = FORMATS[name].join
    for record, raw in join.merge(group) if join else group:
        yield from to_event(record, raw, name, log)


def _with_columns(log: Log, name: str) -> Log:
    """`log` with the columns that the format fixes."""
    columns = FORMATS[name].columns
    return dataclasses.replace(log, fields=columns) if columns else log


def has_events(path: Path, log: Log) -> bool:
    """Whether the file has a record; raises SourceError for damage that shows without reading all of it."""
    return next(read_records(path, format_of(path, log), log), None) is not None


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, UnreadableFile):
        return f"the log {path} cannot be read: {error}"
    return f"the log {path} cannot be read: {error}; it is damaged or truncated: copy it again"


def log_fingerprint(files: Sequence[Path], digests: Sequence[str]) -> str:
    """The SHA-256 of a single file; of several, one over their names and SHA-256s."""
    if len(files) == 1:
        return digests[0]
    return fingerprint(*(file.name for file in files), *digests)
