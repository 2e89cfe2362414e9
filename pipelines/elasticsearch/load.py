"""Loading a corpus or a query log into a cluster, to try Nightrank out against Elasticsearch.

Mappings are explicit: nothing is guessed from the first document. A corpus has the `english` analyzer if the cluster
has it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipelines.elasticsearch.write import (
    Cluster,
    IndexDocument,
    check_name,
    create,
    fill,
    has_analyzer,
    remove,
    source_errors,
)
from pipelines.sources.local.corpus_files import LineError, corpus_lines, parse_passage
from pipelines.sources.local.formats.base import head
from pipelines.sources.local.log_files import format_of, log_files, read_events, together
from rerank_core.config.source import Log
from rerank_core.errors import ConfigError, SourceError
from rerank_core.files import plain_or_gz
from rerank_core.text import utf8
from rerank_core.values import RecordError, decode_json
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
    """The result of a load."""

    kind: Kind
    index: str  # type: ignore[assignment]  # hides tuple.index
    documents: int
    rejected: dict[str, int]  # lines that are not documents, by reason
    analyzer: str  # of a corpus' title and text; "" for a log
    seconds: float


def load(
    cluster: Cluster,
    path: str,
    *,
    index: str,
    replace: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Loaded:
    """Write a corpus (BEIR folder, JSONL) or a query log (a file of any format, a folder, a glob) into a new index.

    Raises:
        SourceError: the files are neither, or the cluster cannot be used.
        ConfigError: the index exists and `replace` is not set, or is an alias.
        WriteError: the index could not be filled, and was removed.
    """
    started = time.monotonic()
    check_name(index, option="--index")
    kind = kind_of(path)
    rejected: Counter[str] = Counter()
    documents = corpus_documents(path, rejected) if kind == "corpus" else log_documents(path, rejected)
    analyzer = ""
    if kind == "corpus":
        analyzer = "english" if has_analyzer(cluster, "english") else "standard"
    _check_free(cluster, index, replace=replace)
    create(cluster, index, {"dynamic": "strict", "properties": properties(kind, analyzer)})
    count = fill(cluster, index, documents, on_progress=on_progress)
    if not count:
        remove(cluster, index)
        raise SourceError(f"{path} has no document; {dict(rejected) or 'it is empty'}")
    return Loaded(
        kind, index, count, dict(sorted(rejected.items())), analyzer, round(time.monotonic() - started, 3)
    )


def properties(kind: Kind, analyzer: str) -> dict[str, Any]:
    """The fields of the mapping."""
    if kind == "log":
        return LOG_PROPERTIES
    text = {"type": "text", "analyzer": analyzer}
    return {"title": text, "text": text, "sentences": {"type": "text", "index": False}}


def kind_of(path: str) -> Kind:
    """Whether files are a corpus, with `_id` and `text`, or a log, with `query`.

    Raises:
        SourceError: no such files, or their first record is neither.
    """
    if plain_or_gz(Path(path) / "corpus.jsonl").is_file():
        return "corpus"
    first = log_files(path, Log())[0]
    if format_of(first, Log()) != "jsonl":
        return "log"
    try:
        keys = set(decode_json(head(first).line))
    except (RecordError, TypeError):
        keys = set()
    if "_id" in keys and keys & {"text", "title"}:
        return "corpus"
    if "query" in keys:
        return "log"
    expected = "a corpus has {_id, title, text} per line, a query log {timestamp, query, user, clicks}"
    raise SourceError(f"{first} is neither a corpus nor a query log: {expected}")


def corpus_documents(path: str, rejected: Counter[str]) -> Iterator[IndexDocument]:
    """The passages, by the rules of the embedded index; lines that these refuse are counted in `rejected`."""
    corpus, seen = Path(path), set[str]()
    for line in corpus_lines(corpus):
        try:
            passage = parse_passage(line, seen=seen)
        except LineError as error:
            rejected[error.reason] += 1
            continue
        seen.add(passage.doc_id)
        source: dict[str, Any] = {"title": passage.title, "text": passage.text}
        if passage.sentences:
            source["sentences"] = list(passage.sentences)
        yield IndexDocument(passage.doc_id, source)


def log_documents(path: str, rejected: Counter[str]) -> Iterator[IndexDocument]:
    """The events, with ids of file and place in it, so that an event that is sent twice is indexed once."""
    for number, (first, *beside) in enumerate(together(log_files(path, Log()), Log())):
        for place, event in enumerate(read_events(first, Log(), beside=beside), start=1):
            if isinstance(event, Rejected):
                rejected[event.reason] += 1
            else:
                yield IndexDocument(f"{number}:{place}", _event_source(event))


def _event_source(event: LogEvent) -> dict[str, Any]:
    source = {
        "timestamp": event.timestamp,
        "query": utf8(event.query),
        "user": event.user,
        "clicks": list(event.clicks),
        "impressions": list(event.impressions),
    }
    return {name: value for name, value in source.items() if value != ""}


def _check_free(cluster: Cluster, index: str, *, replace: bool) -> None:
    with source_errors(cluster):
        if not cluster.client.indices.exists(index=index):
            return
        if cluster.client.indices.exists_alias(name=index):
            raise ConfigError(f"{index!r} is an alias; choose another --index")
        if not replace:
            raise ConfigError(
                f"the index {index!r} exists; --replace removes it first, with all its documents"
            )
        cluster.client.indices.delete(index=index)
