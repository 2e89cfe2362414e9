"""Candidates from Elasticsearch: one search per query, many per request, every item of the response checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.elasticsearch.client import Connection, Settings, classify_error, incomplete
from pipelines.elasticsearch.fields import Fields, leaves
from pipelines.elasticsearch.request import item_failed, send_all
from pipelines.elasticsearch.retry import Answered, Batch, Outcome, Refused, Retry
from rerank_core.config.night import Config
from rerank_core.config.source import Elasticsearch
from rerank_core.errors import ConfigError
from rerank_core.files import read_text
from rerank_core.querylog.privacy import mask, shown
from rerank_core.text import clean, shorten, utf8
from schemas.parsing import parse_json
from schemas.records import Document, Query, Rejected

MAX_HITS = 10_000  # Elasticsearch's limit: index.max_result_window
QUERY, TOP_K = "{{query}}", "{{top_k}}"
_DOCUMENTS_PER_REQUEST = 500
_RESERVED = set("size from _source sort track_total_hits aggs aggregations pit search_after".split())


class Search(NamedTuple):
    """How candidates are searched: all that a worker needs, files read already."""

    target: str  # names of indices, comma-separated
    body: dict[str, Any]  # the template
    options: Elasticsearch
    fields: Fields  # what is read of a document


def search_of(config: Config) -> Search:
    """The search that a configuration describes.

    Raises:
        ConfigError: too many candidates, or a template or a filter that cannot be used.
    """
    options, top_k = config.source.elasticsearch, config.candidates.top_k
    if top_k > MAX_HITS:
        raise ConfigError(
            f"candidates.top_k = {top_k}: Elasticsearch gives at most {MAX_HITS} hits per query"
        )
    return Search(options.index, _template(config), options, Fields(tuple(field_settings(options))))


def field_settings(options: Elasticsearch) -> dict[str, str]:
    """The fields that are read of a document, each with the configuration's key."""
    keys = {options.title_field: "title_field"} | dict.fromkeys(options.text_fields, "text_fields")
    keys |= {options.sentences_field: "sentences_field"}
    return {name: f"source.elasticsearch.{key}" for name, key in keys.items() if name}


def _template(config: Config) -> dict[str, Any]:
    options = config.source.elasticsearch
    if options.query_template:
        body = check_template(_read_json(options.query_template, "query_template"), options.query_template)
    else:
        fields = [f"{options.title_field}^{config.candidates.title_boost}"] if options.title_field else []
        # most_fields adds up title and text, as the embedded index does; best_fields would take the larger.
        match = {"query": QUERY, "fields": [*fields, *options.text_fields], "type": "most_fields"}
        body = {"query": {"multi_match": match}}
    clause = _read_json(options.filter, "filter") if isinstance(options.filter, str) else options.filter
    if clause:
        body = body | {"query": {"bool": {"must": [body["query"]], "filter": clause}}}
    return body


def _read_json(path: str, field: str) -> Any:
    if not path:
        return {}
    try:
        value = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"source.elasticsearch.{field}: {path} cannot be read as JSON: {error}") from None
    if not isinstance(value, (dict, list) if field == "filter" else dict):
        raise ConfigError(f"source.elasticsearch.{field}: {path} must hold a JSON object")
    return value


def check_template(template: dict[str, Any], name: str) -> dict[str, Any]:
    """The body of a search, from a template: a query clause, or a body with "query" in it.

    Raises:
        ConfigError: no placeholder for the query, a placeholder inside a longer string, or a reserved key.
    """
    body = template if "query" in template else {"query": template}
    if reserved := sorted(set(body) & _RESERVED):
        raise ConfigError(f"{name} sets {', '.join(reserved)}, which Nightrank sets itself; remove it")
    strings = list(_strings(body))
    for text in strings:
        if any(placeholder in text and text != placeholder for placeholder in (QUERY, TOP_K)):
            raise ConfigError(
                f"{name} contains {shorten(text)!r}; use {QUERY} and {TOP_K} as whole values, not inside a value or key"
            )
    if QUERY not in strings:
        raise ConfigError(
            f'{name} has no "{QUERY}" as a value, so every query would get the same candidates; add it'
        )
    return body


def _strings(tree: Any) -> list[str]:
    """All values of a tree that are strings, and its keys with a placeholder, which would not be replaced."""
    if isinstance(tree, str):
        return [tree]
    if isinstance(tree, dict):
        keys = [f"{key} as a key" for key in tree if QUERY in key or TOP_K in key]
        return keys + [text for value in tree.values() for text in _strings(value)]
    return [text for value in tree for text in _strings(value)] if isinstance(tree, list) else []


def insert(tree: Any, values: Mapping[str, Any]) -> Any:
    """`tree` with each placeholder replaced by its value, which stays one value whatever characters it has."""
    if isinstance(tree, str):
        return values.get(tree, tree)
    if isinstance(tree, dict):
        return {key: insert(value, values) for key, value in tree.items()}
    return [insert(value, values) for value in tree] if isinstance(tree, list) else tree


def search_lines(search: Search, query: Query, *, top_k: int) -> list[dict[str, Any]]:
    """The two lines of one query in an _msearch.

    `preference` sends a query always to the same copy of each shard. Copies differ in the order of equal scores and
    in the statistics of deleted documents, so without it the candidates at the cut at top_k would vary.
    """
    header = {
        "index": search.target,
        "preference": query.query_id,
        "allow_partial_search_results": False,
    }
    body = insert(search.body, {QUERY: utf8(query.typed or query.text), TOP_K: top_k})
    if search.options.tiebreak_field:
        body["sort"] = ["_score", {search.options.tiebreak_field: "asc"}]
    body |= {"size": top_k, "_source": False, "track_total_hits": False}
    if not search.options.scores_only:
        body["_source"] = search.fields.source
        wanted = {"stored_fields": search.fields.stored, "fields": search.fields.computed}
        body |= {key: names for key, names in wanted.items() if names}
    return [header, body]


def read_item(item: dict[str, Any], *, settings: Settings) -> Outcome:
    """The outcome of one query: its hits, or how it failed."""
    if "error" in item or item.get("status", 200) >= 400:
        return item_failed(item, settings=settings)
    if missing := incomplete(item):
        return Retry(missing, "busy" if "rejected_execution" in missing or "circuit" in missing else "failed")
    return Answered(item["hits"]["hits"])


def documents(hits: Sequence[dict[str, Any]], search: Search) -> list[Document]:
    """Documents of one query's hits, best first and equal scores by id.

    One without text has no title either, so that it becomes a dead letter: its title would be scored as its text.
    """
    options, fields = search.options, search.fields
    result = []
    for rank, hit in enumerate(sorted(hits, key=_best_first), start=1):
        title = _text(fields.values(hit, options.title_field)) if options.title_field else ""
        sentences = _sentences(hit, search) if options.sentences_field else ()
        texts = [_text(fields.values(hit, name)) for name in options.text_fields]
        text = texts[0] if len(texts) == 1 else "\n".join(filter(None, texts))
        text = text or " ".join(sentences)
        if options.text_fields and _blank(text):
            title, text, sentences = "", "", ()
        result.append(Document(utf8(hit["_id"]), title, text, sentences, float(hit["_score"]), rank))
    return result


def _best_first(hit: Mapping[str, Any]) -> tuple[float, str]:
    return -hit["_score"], hit["_id"]


def _sentences(hit: Mapping[str, Any], search: Search) -> tuple[str, ...]:
    """The sentences, each at its place in the index's own list: a null there is a blank sentence."""
    name = search.options.sentences_field
    source = hit.get("_source")
    value = source.get(name) if isinstance(source, dict) else None
    if search.fields.place(hit.get("_index", ""), name).paths != (name,) or not isinstance(value, list):
        value = search.fields.values(hit, name)
    return tuple(_text(leaves(item, ("",))) for item in value)


def _text(values: Sequence[Any]) -> str:
    if len(values) == 1:
        return _string(values[0])
    return " ".join(filter(None, map(_string, values)))


def _blank(text: str) -> bool:
    return not text[:1].isalnum() and not clean(text)


def _string(value: Any) -> str:
    """A value as a text field takes it: numbers and booleans are text too, an object is none."""
    if isinstance(value, str):
        return utf8(value)
    return json.dumps(value) if isinstance(value, (int, float)) else ""


class Fetcher:
    """Fetches the candidates of queries from one cluster."""

    def __init__(self, search: Search, settings: Settings, connection: Connection) -> None:
        self._search, self._settings, self._connection = search, settings, connection

    def fetch(self, queries: Sequence[Query], *, top_k: int) -> list[list[Document] | Rejected]:
        """For each query its documents, best first and equal scores by id, or Rejected."""

        def send(batch: Batch) -> list[Outcome]:
            lines = [
                line
                for position in batch.positions
                for line in search_lines(self._search, queries[position], top_k=top_k)
            ]
            # A retry reduces the load on a busy cluster: no two searches, and no two shards, at the same time.
            limit = 1 if batch.retry else None
            response = self._connection.client.msearch(
                searches=lines, max_concurrent_searches=limit, max_concurrent_shard_requests=limit
            )
            outcomes = [read_item(item, settings=self._settings) for item in response["responses"]]
            # Parsed here, so that the node works on the next batch meanwhile, and the raw hits are freed early.
            return (
                outcomes
                if self._search.options.scores_only
                else [self._parsed(outcome) for outcome in outcomes]
            )

        outcomes = self._send(len(queries), send, batch_size=self._search.options.msearch_size)
        texts = self._texts(outcomes) if self._search.options.scores_only else {}
        return [
            self._documents(query, outcome, texts) for query, outcome in zip(queries, outcomes, strict=True)
        ]

    def _documents(
        self, query: Query, outcome: Answered | Refused, texts: Mapping[tuple[str, str], Answered | Refused]
    ) -> list[Document] | Rejected:
        if isinstance(outcome, Refused):
            failed = f"the search for {shown(query.text)} failed: {mask(outcome.detail)}"  # which may quote the query
            return _reject(query, "search_failed", failed)
        if not outcome.value:
            nothing = f"no document of {self._search.target} matches {shown(query.text)}"
            return _reject(query, "no_candidates", nothing)
        if not self._search.options.scores_only:
            parsed: list[Document] = outcome.value
            return parsed
        for hit in outcome.value:
            text = texts[_key(hit)]
            if isinstance(text, Refused):
                return _reject(query, "search_failed", f"reading {hit['_id']!r} failed: {text.detail}")
            hit.update({key: text.value[key] for key in ("_source", "fields") if key in text.value})
        return documents(outcome.value, self._search)

    def _parsed(self, outcome: Outcome) -> Outcome:
        return Answered(documents(outcome.value, self._search)) if isinstance(outcome, Answered) else outcome

    def _texts(self, outcomes: Sequence[Answered | Refused]) -> dict[tuple[str, str], Answered | Refused]:
        """Every hit's document, each read once however many queries it is a hit of.

        One that was deleted since the search is empty: it becomes a dead letter.
        """
        hits = {
            _key(hit): hit for outcome in outcomes if isinstance(outcome, Answered) for hit in outcome.value
        }
        requests = [_get_request(hit, self._search.fields) for hit in hits.values()]

        def send(batch: Batch) -> list[Outcome]:
            response = self._connection.client.mget(docs=[requests[position] for position in batch.positions])
            return [self._source(item) for item in response["docs"]]

        return dict(
            zip(hits, self._send(len(requests), send, batch_size=_DOCUMENTS_PER_REQUEST), strict=True)
        )

    def _source(self, item: dict[str, Any]) -> Outcome:
        if "error" in item:
            return item_failed({"status": 503} | item, settings=self._settings)
        return Answered(item)

    def _send(self, count: int, send: Any, *, batch_size: int) -> list[Answered | Refused]:
        return send_all(
            count,
            send,
            connection=self._connection,
            settings=self._settings,
            batch_size=batch_size,
            max_retries=self._search.options.max_retries,
            alive=self._alive,
        )

    def _alive(self) -> bool:
        try:
            self._connection.client.search(index=self._search.target, query={"match_none": {}}, size=0)
        except Exception as error:
            return classify_error(error, settings=self._settings).kind != "no_response"
        return True


def _key(hit: Mapping[str, Any]) -> tuple[str, str]:
    return hit["_index"], hit["_id"]


def _get_request(hit: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    request = {"_index": hit["_index"], "_id": hit["_id"], "_source": fields.source}
    request |= {"stored_fields": fields.stored} if fields.stored else {}
    return request | ({"routing": hit["_routing"]} if "_routing" in hit else {})


def _reject(query: Query, reason: str, detail: str) -> Rejected:
    return Rejected("FetchCandidates", "query", query.query_id, reason, detail)
