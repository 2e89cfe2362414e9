"""A large log file in spans, which workers read side by side; each record keeps its number in the whole file.

JSON Lines and tab-separated files are cut at line ends, Parquet at row groups. What is compressed by gzip can only be
read from its start, and in AOL's layout lines that follow one another are one event: such files are read whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from rerank_core.files import is_gzip, without_mark

SPAN_BYTES = 256 * 1024 * 1024
"""A larger file is cut into spans of about that many bytes."""


class Span(NamedTuple):
    """Lines that begin in the bytes from `start` to `end`, or row groups from `start` to `end`; `end` is not in it."""

    start: int
    end: int
    first: int = -1  # lines or rows of the file before it; -1: not known yet


def byte_spans(path: Path) -> list[Span]:
    """The spans of a file of lines, or none if it is to be read whole. How many lines are before each is not known."""
    size = path.stat().st_size
    count = -(-size // SPAN_BYTES)
    if count < 2 or is_gzip(path):
        return []
    return [Span(size * n // count, size * (n + 1) // count) for n in range(count)]


def row_group_spans(path: Path) -> list[Span]:
    """The spans of a Parquet file, or none if it is to be read whole."""
    if path.stat().st_size <= SPAN_BYTES:
        return []
    spans, start, held, first, rows = list[Span](), 0, 0, 0, 0
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            size = sum(group.column(n).total_compressed_size for n in range(group.num_columns))
            if held and held + size > SPAN_BYTES:
                spans.append(Span(start, number, first))
                start, held, first = number, 0, rows
            held, rows = held + size, rows + group.num_rows
        return [*spans, Span(start, file.num_row_groups, first)] if spans else []


def count_lines(path: Path, span: Span) -> int:
    """How many lines begin in a span.

    Raises:
        OSError: the file cannot be read.
    """
    # One begins at the start of the file, and behind each line end but the file's last byte.
    start, left = max(0, span.start - 1), max(0, span.end - 1) - max(0, span.start - 1)
    count = int(span.start == 0 and span.end > 0)
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (data := file.read(min(left, 1 << 20))):
            count += data.count(b"\n")
            left -= len(data)
    return count


def numbered_lines(path: Path, span: Span) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in a span, each without its line end, with its number in the file from 1.

    Raises:
        OSError: the file cannot be read, or is UTF-16.
    """
    with path.open("rb") as file:
        if span.start:
            file.seek(span.start - 1)
            file.readline()
        number = span.first
        while file.tell() < span.end and (line := file.readline()):
            number += 1
            yield number, (line if number > 1 else without_mark(line)).rstrip(b"\r\n")
