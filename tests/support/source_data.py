"""A query log and a corpus for the tests of the Elasticsearch source, and ways to read them."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from elasticsearch import helpers

from pipelines.elasticsearch.log import check_counts, open_slices, read_slice
from pipelines.elasticsearch.pit import SliceCount
from pipelines.elasticsearch.source import ElasticsearchSource
from rerank_core.config.night import parse_config
from schemas.records import Document, LogEvent, Query, Rejected
from tests.support.servers.elasticsearch import Node

DAY = datetime.datetime(2026, 3, 2, tzinfo=datetime.UTC)
WINDOW = (DAY, DAY + datetime.timedelta(days=1))
EVENTS = 20_000
WORDS = "cat dog bird fish tree house river stone cloud rain wind snow".split()

LOG_MAPPING = {
    "timestamp": {"type": "date"},
    "query": {"type": "text"},
    "user": {"type": "keyword"},
    "clicks": {"type": "keyword"},
    "n": {"type": "integer"},
    "lang": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
}
DOC_MAPPING = {"title": {"type": "text"}, "text": {"type": "text"}, "key": {"type": "keyword"}}


def create(node: Node, index: str, mapping: Mapping[str, Any], *, shards: int = 1) -> None:
    node.client().indices.create(
        index=index,
        settings={"number_of_shards": shards, "number_of_replicas": 0},
        mappings={"properties": mapping},
    )


def bulk(node: Node, index: str, documents: Mapping[str, Mapping[str, Any]]) -> None:
    actions = ({"_index": index, "_id": doc_id, "_source": one} for doc_id, one in documents.items())
    helpers.bulk(node.client(), actions, refresh=True)


def event(n: int) -> dict[str, Any]:
    """Event `n`: fifty of them share a second, so that a moment is cut by pages and by losses."""
    time = DAY + datetime.timedelta(seconds=n // 50)
    query = f"{WORDS[n % 12]} {WORDS[n * 7 % 11]}"
    return {
        "timestamp": time.isoformat(),
        "query": query,
        "user": f"u{n % 50}",
        "clicks": [f"d{n % 9}"],
        "n": n,
        "lang": "en" if n % 3 else "de",
        "unused": "x" * 50,
    }


def expected(index: str, n: int) -> LogEvent:
    made = event(n)
    return LogEvent(
        f"{index}/e{n}", made["timestamp"], made["query"], made["user"], tuple(made["clicks"]), ()
    )


def load_log(node: Node, index: str, *, events: int = EVENTS, shards: int = 2) -> None:
    """A log of which a third was written twice: its deleted documents make naive slices uneven."""
    create(node, index, LOG_MAPPING, shards=shards)
    bulk(node, index, {f"e{n}": event(n) for n in range(events)})
    bulk(node, index, {f"e{n}": event(n) for n in range(0, events, 3)})


def load_docs(node: Node, index: str, *, documents: int = 2000, shards: int = 1) -> None:
    create(node, index, DOC_MAPPING, shards=shards)
    chance = random.Random(1)
    made = {}
    for n in range(documents):
        text = " ".join(chance.choices([*WORDS, *(f"w{k}" for k in range(300))], k=30))
        made[f"d{n:05}"] = {"title": chance.choice(WORDS), "text": text, "key": f"d{n:05}"}
    bulk(node, index, made)


def queries(count: int) -> list[Query]:
    return [
        Query(f"{n:016x}", f"{WORDS[n % 12]} {WORDS[n * 5 % 11]} w{n % 300}", 1, 1, ()) for n in range(count)
    ]


def source(
    url: str, *, window: Any = WINDOW, log: Mapping[str, Any] | None = None, **wanted: Any
) -> ElasticsearchSource:
    """A source whose waits suit a test: many retries, and short ones (see the `quick` fixture)."""
    wanted = {"url": url, "max_retries": 60, **wanted}
    raw = {"source": {"kind": "elasticsearch", "elasticsearch": wanted}, "log": dict(log or {})}
    return ElasticsearchSource(parse_config(raw), window=window)


def read(
    reader: ElasticsearchSource, *, at: Mapping[int, Callable[[], None]] | None = None
) -> tuple[list[LogEvent | Rejected], list[SliceCount]]:
    """Everything in the log, slice after slice, the counts checked; `at[n]` is called after the n-th event."""
    if reader._events is None:
        reader.describe()
    records: list[LogEvent | Rejected] = []
    counts: list[SliceCount] = []
    for record in _records(reader):
        if isinstance(record, SliceCount):
            counts.append(record)
            continue
        records.append(record)
        if at and len(records) in at:
            at[len(records)]()
    check_counts(counts)
    return records, counts


def _records(reader: ElasticsearchSource) -> Iterator[LogEvent | Rejected | SliceCount]:
    log = reader._events
    assert log is not None
    for part in open_slices(None, log):
        yield from read_slice(part, log)


def lists(found: list[list[Document] | Rejected]) -> list[list[tuple[str, float]]]:
    """The candidates as (doc_id, score); none may be missing."""
    assert not [one for one in found if isinstance(one, Rejected)][:3]
    return [[(d.doc_id, d.bm25_score) for d in one] for one in found if not isinstance(one, Rejected)]
