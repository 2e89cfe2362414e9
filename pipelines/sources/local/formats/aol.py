"""The layout of AOL's query log of 2006, which other logs have kept: AnonID, Query, QueryTime, ItemRank, ClickURL.

A line is a search without a click, or one click of a search: a search with several clicks has several lines, one after
the other, of equal user, query and time. They are one event here. ItemRank is not used: the documents beside the
clicked one, which make a rank meaningful, are not in such a log.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from pipelines.sources.local.formats import tsv
from pipelines.sources.local.formats.base import Fields, LogFormat
from rerank_core.config.source import Log, LogFields
from rerank_core.values import RecordError

COLUMNS = LogFields(timestamp="QueryTime", query="Query", user="AnonID", clicks="ClickURL", impressions="")


def records(path: Path, log: Log) -> Iterator[tuple[int, Fields]]:
    """Each search with all its clicks, under the number of its first line."""
    for _, lines in itertools.groupby(tsv.records(path, log), key=_search):
        number, first = next(lines)
        if isinstance(first, RecordError):
            yield number, first
        else:
            rows = [first, *(row for _, row in lines)]
            yield number, first | {"ClickURL": [row["ClickURL"] for row in rows if "ClickURL" in row]}


def _search(record: tuple[int, Fields]) -> object:
    number, row = record
    search = () if isinstance(row, RecordError) else tuple(map(row.get, ("AnonID", "Query", "QueryTime")))
    return search if search and None not in search else number


FORMAT = LogFormat(
    endings=(".txt", ".tsv"),
    recognises=lambda head, log: {"AnonID", "Query", "QueryTime"} <= set(tsv.header(head.line)),
    records=records,
    columns=COLUMNS,
)
