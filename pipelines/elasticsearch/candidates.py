"""Candidates from Elasticsearch: one search a query, many in a request, every item of the answer checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.elasticsearch.client import Connection, Settings, incomplete, trouble
from pipelines.elasticsearch.request import ask, of_item
from pipelines.elasticsearch.retry import Again, Answered, Batch, Outcome, Refused
from rerank_core.config.night import Config
from rerank_core.errors import ConfigError
from rerank_core.text import shorten, utf8
from schemas.records import Document, Query, Rejected

MOST_HITS = 10_000  # Elasticsearch's own limit: index.max_result_window
QUERY, TOP_K = "{{query}}", "{{top_k}}"
_DOCS_A_REQUEST = 500
_OURS = ("size", "from", "_source", "sort", "track_total_hits", "aggs", "aggregations", "pit", "search_after")


class Search(NamedTuple):
    """How candidates are searched: all that a worker needs, read from files already."""

    target: str  # concrete names, comma-separated
    body: dict[str, Any]  # the template
    title_field: str
    text_fields: tuple[str, ...]
    sentences_field: str
    tiebreak_field: str
    batch_size: int
    max_retries: int
    scores_only: bool

    @property
    def source_fields(self) -> list[str]:
        return [name for name in (self.title_field, *self.text_fields, self.sentences_field) if name]


def search_of(config: Config) -> Search:
    """Check and complete what the configuration says of searching.

    Raises:
        ConfigError: too many candidates, or a template or a filter that cannot be used.
    """
    wanted, top_k = config.source.elasticsearch, config.candidates.top_k
    if top_k > MOST_HITS:
        raise ConfigError(f"candidates.top_k = {top_k}: Elasticsearch gives at most {MOST_HITS} hits a query")
    return Search(
        target=wanted.index,
        body=_template(config),
        title_field=wanted.title_field,
        text_fields=wanted.text_fields,
        sentences_field=wanted.sentences_field,
        tiebreak_field=wanted.tiebreak_field,
        batch_size=wanted.msearch_size,
        max_retries=wanted.max_retries,
        scores_only=wanted.scores_only,
    )


def _template(config: Config) -> dict[str, Any]:
    wanted = config.source.elasticsearch
    if wanted.query_template:
        body = check_template(_read_json(wanted.query_template, "query_template"), wanted.query_template)
    else:
        fields = [f"{wanted.title_field}^{config.candidates.title_boost}"] if wanted.title_field else []
        # most_fields adds up title and text, as the embedded index does; best_fields would take the larger.
        match = {"query": QUERY, "fields": [*fields, *wanted.text_fields], "type": "most_fields"}
        body = {"query": {"multi_match": match}}
    clause = _read_json(wanted.filter, "filter") if isinstance(wanted.filter, str) else wanted.filter
    if clause:
        body = body | {"query": {"bool": {"must": [body["query"]], "filter": clause}}}
    return body


def _read_json(path: str, field: str) -> Any:
    if not path:
        return {}
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"source.elasticsearch.{field}: {path} cannot be read as JSON: {error}") from None
    if not isinstance(value, (dict, list) if field == "filter" else dict):
        raise ConfigError(f"source.elasticsearch.{field}: {path} must hold a JSON object")
    return value


def check_template(template: dict[str, Any], name: str) -> dict[str, Any]:
    """A template as the body of a search, if it is one: a query clause, or a body with "query" in it.

    Raises:
        ConfigError: no place for the query, a placeholder inside a longer string, or a key that is ours to set.
    """
    body = template if "query" in template else {"query": template}
    if ours := sorted(set(body) & set(_OURS)):
        raise ConfigError(f"{name} sets {', '.join(ours)}, which Nightrank sets itself; remove it")
    strings = list(_strings(body))
    for text in strings:
        if any(place in text and text != place for place in (QUERY, TOP_K)):
            found = f"{name} holds {shorten(text)!r}"
            raise ConfigError(f"{found}: {QUERY} and {TOP_K} stand for a whole value, never a part of one")
    if QUERY not in strings:
        raise ConfigError(f'{name} has no "{QUERY}" as a value, so every query would get the same candidates')
    return body


def _strings(tree: Any) -> list[str]:
    """All strings of a tree, keys included: a placeholder as a key would never be replaced."""
    if isinstance(tree, str):
        return [tree]
    if isinstance(tree, dict):
        keys = [f"{key} as a key" for key in tree if QUERY in key or TOP_K in key]
        return keys + [text for value in tree.values() for text in _strings(value)]
    return [text for value in tree for text in _strings(value)] if isinstance(tree, list) else []


def insert(tree: Any, values: Mapping[str, Any]) -> Any:
    """`tree` with each placeholder replaced by its value: a value stays one value, whatever it is spelled like."""
    if isinstance(tree, str):
        return values.get(tree, tree)
    if isinstance(tree, dict):
        return {key: insert(value, values) for key, value in tree.items()}
    return [insert(value, values) for value in tree] if isinstance(tree, list) else tree


def search_lines(search: Search, query: Query, *, top_k: int) -> list[dict[str, Any]]:
    """The two lines of one query in an _msearch.

    `preference` sends a query always to the same copy of each shard. Copies differ in the order of equal scores,
    and in the statistics of deleted documents, so that without it a cut at top_k would change by chance.
    """
    header = {
        "index": search.target,
        "preference": query.query_id,
        "allow_partial_search_results": False,
    }
    body = insert(search.body, {QUERY: utf8(query.text), TOP_K: top_k})
    if search.tiebreak_field:
        body["sort"] = ["_score", {search.tiebreak_field: "asc"}]
    source: Any = False if search.scores_only else search.source_fields
    return [header, body | {"size": top_k, "_source": source, "track_total_hits": False}]


def read_item(item: dict[str, Any], *, settings: Settings) -> Outcome:
    """The hits of one query, or why there are none to be had."""
    if "error" in item or item.get("status", 200) >= 400:
        return of_item(item, settings=settings)
    if missing := incomplete(item):
        return Again(missing, "busy" if "rejected_execution" in missing or "circuit" in missing else "failed")
    return Answered(item["hits"]["hits"])


def documents(hits: Sequence[dict[str, Any]], search: Search) -> list[Document]:
    """The hits of one query with their texts, best first and equal scores by id."""
    title, texts, sentences = search.title_field, search.text_fields, search.sentences_field
    made = []
    for rank, hit in enumerate(sorted(hits, key=_best_first), start=1):
        source = hit.get("_source") or {}
        made.append(
            Document(
                utf8(hit["_id"]),
                _text(source, title) if title else "",
                _text(source, texts[0]) if len(texts) == 1 else _paragraphs(source, texts),
                _sentences(source, sentences) if sentences else (),
                float(hit["_score"]),
                rank,
            )
        )
    return made


def _best_first(hit: Mapping[str, Any]) -> tuple[float, str]:
    return -hit["_score"], hit["_id"]


def _paragraphs(source: Mapping[str, Any], fields: Sequence[str]) -> str:
    return "\n".join(text for name in fields if (text := _text(source, name)))


def _sentences(source: Mapping[str, Any], field: str) -> tuple[str, ...]:
    found = lookup(source, field)
    return tuple(map(_joined, found)) if isinstance(found, list) else ()


def lookup(source: Mapping[str, Any], name: str) -> Any:
    """The value of a field in a _source, where "a.b" may be spelled out or nested."""
    if name in source:
        return source[name]
    head, _, rest = name.partition(".")
    while rest:
        inner = source.get(head)
        if isinstance(inner, Mapping):
            return lookup(inner, rest)
        more, _, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def _text(source: Mapping[str, Any], name: str) -> str:
    value = source.get(name)
    return utf8(value) if isinstance(value, str) else _joined(lookup(source, name))


def _joined(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(filter(None, map(_joined, value)))
    if isinstance(value, str):
        return utf8(value)
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


class Fetcher:
    """Asks one cluster for the candidates of queries."""

    def __init__(self, search: Search, settings: Settings, connection: Connection) -> None:
        self._search, self._settings, self._connection = search, settings, connection

    def fetch(self, queries: Sequence[Query], *, top_k: int) -> list[list[Document] | Rejected]:
        """For each query its documents, best first and equal scores by id, or Rejected."""

        def send(batch: Batch) -> list[Outcome]:
            lines = [
                line
                for at in batch.positions
                for line in search_lines(self._search, queries[at], top_k=top_k)
            ]
            # A retry is gentle to a busy cluster: one search after the other, one shard after the other.
            at_once = 1 if batch.retry else None
            answer = self._connection.client.msearch(
                searches=lines, max_concurrent_searches=at_once, max_concurrent_shard_requests=at_once
            )
            found = [read_item(item, settings=self._settings) for item in answer["responses"]]
            # Made here, so that the node works on the next batch meanwhile, and the raw hits are freed early.
            return found if self._search.scores_only else [self._made(one) for one in found]

        found = self._ask(len(queries), send, batch_size=self._search.batch_size)
        texts = self._texts(found) if self._search.scores_only else {}
        return [self._documents(query, outcome, texts) for query, outcome in zip(queries, found, strict=True)]

    def _documents(
        self, query: Query, found: Answered | Refused, texts: Mapping[tuple[str, str], Answered | Refused]
    ) -> list[Document] | Rejected:
        shown = shorten(query.text, limit=80)
        if isinstance(found, Refused):
            return _reject(query, "search_failed", f"the search for {shown!r} failed: {found.detail}")
        if not found.value:
            return _reject(query, "no_candidates", f"no document of {self._search.target} matches {shown!r}")
        if not self._search.scores_only:
            made: list[Document] = found.value
            return made
        for hit in found.value:
            text = texts[_key(hit)]
            if isinstance(text, Refused):
                return _reject(query, "search_failed", f"the text of {hit['_id']!r} failed: {text.detail}")
            hit["_source"] = text.value
        return documents(found.value, self._search)

    def _made(self, found: Outcome) -> Outcome:
        return Answered(documents(found.value, self._search)) if isinstance(found, Answered) else found

    def _texts(self, found: Sequence[Answered | Refused]) -> dict[tuple[str, str], Answered | Refused]:
        """The _source of every document that was found, each read once however many queries found it.

        A document that was deleted since it was found has an empty one: it becomes a dead letter of its own.
        """
        hits = {_key(hit): hit for one in found if isinstance(one, Answered) for hit in one.value}
        wanted = [_wanted(hit, self._search.source_fields) for hit in hits.values()]

        def send(batch: Batch) -> list[Outcome]:
            answer = self._connection.client.mget(docs=[wanted[at] for at in batch.positions])
            return [self._source(item) for item in answer["docs"]]

        return dict(zip(hits, self._ask(len(wanted), send, batch_size=_DOCS_A_REQUEST), strict=True))

    def _source(self, item: dict[str, Any]) -> Outcome:
        if "error" in item:
            return of_item({"status": 503} | item, settings=self._settings)
        return Answered(item.get("_source") or {})

    def _ask(self, count: int, send: Any, *, batch_size: int) -> list[Answered | Refused]:
        return ask(
            count,
            send,
            connection=self._connection,
            settings=self._settings,
            batch_size=batch_size,
            max_retries=self._search.max_retries,
            alive=self._alive,
        )

    def _alive(self) -> bool:
        try:
            self._connection.client.search(index=self._search.target, query={"match_none": {}}, size=0)
        except Exception as error:
            return trouble(error, settings=self._settings).kind != "silent"
        return True


def _key(hit: Mapping[str, Any]) -> tuple[str, str]:
    return hit["_index"], hit["_id"]


def _wanted(hit: Mapping[str, Any], fields: list[str]) -> dict[str, Any]:
    wanted = {"_index": hit["_index"], "_id": hit["_id"], "_source": fields}
    return wanted | ({"routing": hit["_routing"]} if "_routing" in hit else {})


def _reject(query: Query, why: str, detail: str) -> Rejected:
    return Rejected("FetchCandidates", "query", query.query_id, why, detail)
