"""Putting a corpus or a query log into a cluster, for trying Nightrank out against Elasticsearch.

Explicit mappings: nothing is guessed from the first document, and a corpus is searched through the `english`
analyzer where the cluster has it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipelines.elasticsearch.write import (
    Cluster,
    Document,
    check_name,
    create,
    explained,
    fill,
    has_analyzer,
    remove,
)
from pipelines.sources.local.corpus_files import LineError, parse_passage
from pipelines.sources.local.log_files import log_files, read_events
from rerank_core.config.night import LogFields
from rerank_core.errors import ConfigError, SourceError
from schemas.records import LogEvent, Rejected

Kind = Literal["corpus", "log"]
LOG_PROPERTIES: dict[str, Any] = {
    "timestamp": {"type": "date"},
    "query": {"type": "text", "fields": {"raw": {"type": "keyword", "ignore_above": 2048}}},
    "user": {"type": "keyword"},
    "clicks": {"type": "keyword"},
    "impressions": {"type": "keyword", "index": False, "doc_values": False},
}


class Loaded(NamedTuple):
    """What a load did."""

    kind: Kind
    index: str  # type: ignore[assignment]  # hides tuple.index
    documents: int
    rejected: dict[str, int]  # lines that hold no document, by reason
    analyzer: str  # of the corpus' title and text; "" for a log
    seconds: float


def load(
    cluster: Cluster,
    path: str,
    *,
    index: str,
    replace: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Loaded:
    """Write a corpus (BEIR folder, JSONL) or a query log (JSONL, Parquet, folder, glob) into a new index.

    Raises:
        SourceError: the files hold neither, or the cluster cannot be used.
        ConfigError: the index is there already and `replace` is not set, or is an alias.
        WriteError: it could not be filled, and is gone.
    """
    started = time.monotonic()
    check_name(index, option="--index")
    kind = kind_of(path)
    rejected: Counter[str] = Counter()
    documents = corpus_documents(path, rejected) if kind == "corpus" else log_documents(path, rejected)
    analyzer = ""
    if kind == "corpus":
        analyzer = "english" if has_analyzer(cluster, "english") else "standard"
    _make_room(cluster, index, replace=replace)
    create(cluster, index, {"dynamic": "strict", "properties": properties(kind, analyzer)})
    count = fill(cluster, index, documents, on_progress=on_progress)
    if not count:
        remove(cluster, index)
        raise SourceError(f"{path} holds no document; {dict(rejected) or 'it is empty'}")
    return Loaded(
        kind, index, count, dict(sorted(rejected.items())), analyzer, round(time.monotonic() - started, 3)
    )


def properties(kind: Kind, analyzer: str) -> dict[str, Any]:
    """The mapping's fields."""
    if kind == "log":
        return LOG_PROPERTIES
    text = {"type": "text", "analyzer": analyzer}
    return {"title": text, "text": text, "sentences": {"type": "text", "index": False}}


def kind_of(path: str) -> Kind:
    """What files hold: a corpus has `_id` and `text`, a log has `query`.

    Raises:
        SourceError: no such files, or their first record is neither.
    """
    if (Path(path) / "corpus.jsonl").is_file():
        return "corpus"
    first = log_files(path)[0]
    if first.suffix in (".parquet", ".gz"):
        return "log"
    with first.open(encoding="utf-8-sig", errors="replace") as lines:
        line = next((line for line in lines if line.strip()), "")
    try:
        keys = set(json.loads(line))
    except (ValueError, TypeError, RecursionError):
        keys = set()
    if "_id" in keys and keys & {"text", "title"}:
        return "corpus"
    if "query" in keys:
        return "log"
    expected = "a corpus has {_id, title, text} a line, a query log {timestamp, query, user, clicks}"
    raise SourceError(f"{first} is neither a corpus nor a query log: {expected}")


def corpus_documents(path: str, rejected: Counter[str]) -> Iterator[Document]:
    """The passages, by the rules of the embedded index; what they refuse is counted in `rejected`."""
    corpus, seen = Path(path), set[str]()
    with (corpus / "corpus.jsonl" if corpus.is_dir() else corpus).open("rb") as lines:
        for line in lines:
            try:
                passage = parse_passage(line, seen=seen)
            except LineError as problem:
                rejected[problem.args[0]] += 1
                continue
            seen.add(passage.doc_id)
            source: dict[str, Any] = {"title": passage.title, "text": passage.text}
            if passage.sentences:
                source["sentences"] = list(passage.sentences)
            yield Document(passage.doc_id, source)


def log_documents(path: str, rejected: Counter[str]) -> Iterator[Document]:
    """The events, ids made of file and line: one that is sent twice is there once."""
    for number, file in enumerate(log_files(path)):
        for event in read_events(file, LogFields()):
            if isinstance(event, Rejected):
                rejected[event.reason] += 1
            else:
                yield Document(f"{number}:{event.record.rpartition(':')[2]}", _event_source(event))


def _event_source(event: LogEvent) -> dict[str, Any]:
    source = {
        "timestamp": event.timestamp,
        "query": event.query.encode("utf-8", "ignore").decode(),
        "user": event.user,
        "clicks": list(event.clicks),
        "impressions": list(event.impressions),
    }
    return {name: value for name, value in source.items() if value != ""}


def _make_room(cluster: Cluster, index: str, *, replace: bool) -> None:
    with explained(cluster):
        if not cluster.client.indices.exists(index=index):
            return
        if cluster.client.indices.exists_alias(name=index):
            raise ConfigError(f"{index!r} is an alias; choose another --index")
        if not replace:
            raise ConfigError(
                f"the index {index!r} is there already; --replace removes it first, with all it holds"
            )
        cluster.client.indices.delete(index=index)
