"""Tab-separated values: the first line names the columns, each other line is one event.

An empty cell is a missing value, and so is one that a short line does not have. A cell may be quoted as pandas and
spreadsheets quote. Several doc ids in a cell are a JSON list.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipelines.sources.local.formats.base import Fields, Head, LogFormat, check_columns
from pipelines.sources.local.spans import Span, byte_spans, numbered_lines
from rerank_core.config.source import Log
from rerank_core.files import read_lines
from rerank_core.values import RecordError


def records(path: Path, log: Log) -> Iterator[tuple[int, Fields]]:
    """The cells of each line that is not blank, by column.

    Raises:
        SourceError: the first line lacks a configured column.
    """
    names: list[str] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        if not names:
            names = header(line)
            check_columns(path, names, log)
        else:
            yield number, _row(line, names)


def records_of(path: Path, log: Log, span: Span) -> Iterator[tuple[int, Fields]]:
    """The same of a span; the columns are named in the file's first line.

    Raises:
        SourceError: as `records`.
    """
    lines = ((number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip())
    first, line = next(lines, (0, b""))
    if not line:
        return
    names = header(line)
    check_columns(path, names, log)
    for number, line in numbered_lines(path, span):
        if number > first and line.strip():
            yield number, _row(line, names)


def header(line: bytes) -> list[str]:
    """Names of the columns."""
    return [cell.strip() for cell in _cells(line.decode("utf-8", "replace"), 0)]


def _row(line: bytes, names: list[str]) -> Fields:
    try:
        cells = _cells(line.decode(), len(names))
    except UnicodeDecodeError as error:
        where = f"byte {line[error.start]:#04x} at position {error.start + 1}"
        return RecordError("bad_utf8", f"{where} is not UTF-8; convert the file with iconv")
    if len(cells) > len(names):
        problem = f"the line has {len(cells)} cells, the first line of the file names {len(names)}"
        return RecordError("bad_row", f"{problem}; a cell must hold no tab")
    return {name: cell for name, cell in zip(names, cells, strict=False) if cell.strip()}


def _cells(line: str, width: int) -> list[str]:
    """The cells of a line; quotes are taken as such only where all of the line can be read with them."""
    cells = line.split("\t")
    if any(cell.startswith('"') for cell in cells):
        try:
            (quoted,) = csv.reader([line], delimiter="\t", strict=True)
        except (csv.Error, ValueError):  # a query that begins with a quotation mark
            return cells
        if not width or len(quoted) == width:
            return quoted
    return cells


def recognises(head: Head, log: Log) -> bool:
    """The first line has cells, and is no JSON."""
    return b"\t" in head.line and not head.line.lstrip().startswith((b"{", b"["))


FORMAT = LogFormat(
    endings=(".tsv",), recognises=recognises, records=records, spans=byte_spans, records_of=records_of
)
