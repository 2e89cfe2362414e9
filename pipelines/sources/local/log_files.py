"""Query logs in files: JSON Lines (also gzipped) and Parquet; every record is read, or rejected by file and line."""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_core.config.night import LogFields
from rerank_core.errors import SourceError
from rerank_core.querylog.events import EventError, parse_event, passes_filter
from rerank_core.text import fingerprint, utf8
from schemas.records import LogEvent, Rejected

_LOG_ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")


def log_files(log: str) -> list[Path]:
    """Files of a log, sorted: a file, the log files of a folder (not of its subfolders), or those of a glob.

    Raises:
        SourceError: there are none.
    """
    if "://" in log:
        raise SourceError(
            f"source.kind = 'local' reads local files only, not {log}: copy the log to this machine"
        )
    if Path(log).is_dir():
        files = [f for f in Path(log).iterdir() if f.name.endswith(_LOG_ENDINGS) and f.name[0] not in "._"]
    else:
        files = [Path(path) for path in ([log] if Path(log).is_file() else glob.glob(log, recursive=True))]
    files = sorted(file for file in files if file.is_file())
    if not files:
        expected = f"give a file, or a folder or a glob of {', '.join(_LOG_ENDINGS)} files"
        raise SourceError(f"no query log at {log!r} (source.log); {expected}")
    return files


def read_events(
    path: Path, fields: LogFields, *, log_filter: Mapping[str, str] | None = None
) -> Iterator[LogEvent | Rejected]:
    """Stream the events of one file: Parquet if it ends in .parquet, else JSON lines, gzipped if in .gz.

    Args:
        path: the file. Records are named "NAME:LINE" (Parquet: "NAME:ROW"), from 1. Blank lines are skipped.
        fields: names of the columns.
        log_filter: column -> value; other events are skipped.

    Yields:
        A LogEvent or Rejected for each record: bad_utf8, bad_json, or a reason of `parse_event`.

    Raises:
        SourceError: the file cannot be read to its end, or lacks a configured Parquet column.
    """
    log_filter = log_filter or {}
    name = utf8(path.name)
    records = _parquet_records(path, fields, log_filter) if path.suffix == ".parquet" else _json_records(path)
    for number, raw in records:
        record = f"{name}:{number}"
        try:
            if isinstance(raw, EventError):
                raise raw
            if passes_filter(raw, log_filter):
                yield parse_event(raw, fields, record=record)
        except EventError as error:
            yield Rejected("ReadQueryLog", "event", record, error.reason, error.detail)


def read_file(path: str, fields: LogFields, log_filter: dict[str, str]) -> Iterator[LogEvent | Rejected]:
    return read_events(Path(path), fields, log_filter=log_filter)


def _json_records(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _decode(line)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(_unreadable(path, error)) from None


def _decode(line: bytes) -> Any:
    """A line's JSON value, or why it has none. Details quote nothing: a line may name its user."""
    try:
        return json.loads(line.decode("utf-8-sig").rstrip())
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at position {error.start + 1}"
        return EventError("bad_utf8", f"{where} is not UTF-8 ({error.reason}); convert the log with iconv")
    except json.JSONDecodeError as error:
        where = f"{error.msg.removesuffix(' at')} at character {error.pos + 1} of {len(error.doc)}"
        return EventError("bad_json", f"{where}; each line must hold one JSON object")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless nesting
        return EventError("bad_json", f"the line's JSON cannot be decoded: {type(error).__name__}")


def _parquet_records(
    path: Path, fields: LogFields, log_filter: Mapping[str, str]
) -> Iterator[tuple[int, Any]]:
    file = _open_parquet(path, fields, log_filter)
    columns = [name for name in file.schema_arrow.names if name in {*_columns(fields), *log_filter}]
    number = 0
    try:
        for batch in file.iter_batches(batch_size=4096, columns=columns):
            for row in _rows(_times_as_text(batch, fields.timestamp)):
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise SourceError(_unreadable(path, error)) from None


def _columns(fields: LogFields) -> list[str]:
    """Names of the configured columns."""
    names = (fields.timestamp, fields.query, fields.user, fields.clicks, fields.impressions)
    return [name for name in names if name]


def _times_as_text(batch: pa.RecordBatch, column: str) -> pa.RecordBatch:
    """`batch` with its times as ISO-8601 text: one year after 9999 would make Python's reject the whole batch."""
    index = batch.schema.get_field_index(column)
    if index < 0 or not pa.types.is_temporal(batch.schema.field(index).type):
        return batch
    times = batch.column(index)
    if pa.types.is_timestamp(times.type):
        times = times.cast(pa.timestamp(times.type.unit, "UTC"))  # a time without a zone is UTC
    return batch.set_column(index, column, times.cast(pa.string()))


def _rows(batch: pa.RecordBatch) -> Iterable[Any]:
    try:
        return list(batch.to_pylist())
    except ValueError:  # some row is not UTF-8: find it
        return [_row(batch.slice(row, 1)) for row in range(batch.num_rows)]


def _row(batch: pa.RecordBatch) -> Any:
    try:
        return batch.to_pylist()[0]
    except ValueError as error:
        return EventError(
            "bad_utf8", f"the row is not UTF-8 ({type(error).__name__}); write its text as UTF-8"
        )


def _open_parquet(path: Path, fields: LogFields, log_filter: Mapping[str, str]) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(_unreadable(path, error)) from None
    names = file.schema_arrow.names
    named = [("log.fields.query", fields.query), ("log.fields.timestamp", fields.timestamp)]
    for setting, name in (*named, *(("log.filter", name) for name in log_filter)):
        if name and name not in names:
            raise SourceError(
                f"{path} has no column {name!r}, which {setting} names; it has {', '.join(names)}"
            )
    return file


def has_events(path: Path, fields: LogFields, log_filter: Mapping[str, str]) -> bool:
    """Whether the file is not empty; raises SourceError for damage that shows without reading all of it."""
    if path.stat().st_size == 0:
        return False
    if path.suffix == ".parquet":
        return bool(_open_parquet(path, fields, log_filter).metadata.num_rows)
    if path.suffix != ".gz":
        return True
    try:
        with gzip.open(path) as content:
            return bool(content.read(1))
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    return f"the log {path} cannot be read: {error}; it is damaged or truncated: copy it again"


def log_fingerprint(files: Sequence[Path]) -> str:
    """SHA-256 of a single file's bytes; of several, over their names and SHA-256s."""
    digests = []
    for file in files:
        with file.open("rb") as content:
            digests.append(hashlib.file_digest(content, "sha256").hexdigest())
    if len(files) == 1:
        return digests[0]
    return fingerprint(*(file.name for file in files), *digests)
