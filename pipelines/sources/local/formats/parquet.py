"""Parquet: one event a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.local.formats.base import Fields, LogFormat, check_columns, wanted
from pipelines.sources.local.spans import Span, row_group_spans
from rerank_core.config.source import Log
from rerank_core.values import RecordError

_TEXTS = {pa.binary(): pa.string(), pa.large_binary(): pa.large_string()}


def records(path: Path, log: Log) -> Iterator[tuple[int, Fields]]:
    """The configured columns of each row.

    Raises:
        SourceError: one that must be there is not. OSError, pa.ArrowException: the file cannot be read.
    """
    return _records(path, log, None)


def records_of(path: Path, log: Log, span: Span) -> Iterator[tuple[int, Fields]]:
    """The same of a span of row groups."""
    return _records(path, log, span)


def _records(path: Path, log: Log, span: Span | None) -> Iterator[tuple[int, Fields]]:
    with pq.ParquetFile(path) as file:
        check_columns(path, file.schema_arrow.names, log)
        columns = [name for name in file.schema_arrow.names if name in wanted(log)]
        number = span.first if span else 0
        groups = range(span.start, span.end) if span else None
        for batch in file.iter_batches(batch_size=4096, columns=columns, row_groups=groups):
            for row in _rows(_plain(batch)):
                number += 1
                yield number, row


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` without dictionaries, and with times as ISO-8601 text.

    One year after 9999 would make Python's conversion reject the whole batch, and one nanosecond that of pandas.
    """
    columns = [_plain_column(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain_column(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if text := _TEXTS.get(column.type):  # of a writer that does not annotate text as such
        column = column.view(text)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))  # a time without a zone is UTC
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.string())
    return column


def _rows(batch: pa.RecordBatch) -> Iterable[Fields]:
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError):  # some row is not UTF-8, or has a duration beyond Python's: find it
        return [_row(batch.slice(row, 1)) for row in range(batch.num_rows)]


def _row(batch: pa.RecordBatch) -> Fields:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        name = type(error).__name__
        return RecordError("bad_utf8", f"the row is not UTF-8 ({name}); write its text as UTF-8")
    except (ValueError, OverflowError) as error:
        problem = f"a value is beyond Python's range ({type(error).__name__})"
        return RecordError("bad_row", f"{problem}; write times as timestamps, ids as strings")


FORMAT = LogFormat(
    endings=(".parquet", ".pq"),
    recognises=lambda head, log: head.parquet,
    records=records,
    spans=row_group_spans,
    records_of=records_of,
)
