"""User Behavior Insights of OpenSearch and Solr (schema 1.0 to 1.3): JSON Lines of `ubi_queries` and `ubi_events`.

A query names what was asked and the documents returned; an event names one action on one of them. Both hold the
query_id, by which they are joined, whether they are in one file or in several. Events other than `log.click_actions`,
and those outside of any search, say nothing of a search's results and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipelines.sources.local.formats import jsonl
from pipelines.sources.local.formats.base import Fields, Head, Join, LogFormat, Part
from rerank_core.config.source import Log, LogFields
from rerank_core.values import RecordError, decode_json, identifier, is_null, many, scalar, utc_timestamp

COLUMNS = LogFields(
    timestamp="timestamp",
    query="user_query",
    user="client_id",
    clicks="clicks",
    impressions="query_response_hit_ids",
)
_EVENT, _QUERY, _ID, _HITS = "action_name", "user_query", "query_id", "query_response_hit_ids"
_USED = ("timestamp", _QUERY, "client_id", "user_id", _HITS)


def part(record: Fields, log: Log) -> tuple[str, Fields] | None:
    """The query_id of a query or a click and the fields that are used; None for other events, and outside of a search.

    Raises:
        RecordError: not_an_object, or no_query_id: a query without one, or an id that is none.
    """
    fields = _unwrapped(record)
    action = _action(fields)
    is_event = action is not None
    if is_event and action not in log.click_actions:
        return None
    try:
        found = scalar(fields.get(_ID))
        name = "" if found is None else identifier(found).strip()
    except ValueError as error:
        raise RecordError("no_query_id", f"'{_ID}': {error}; it must be a string") from None
    if not name and not is_event:
        raise RecordError("no_query_id", f"a query without '{_ID}'; no event can be joined to it without")
    used = {name: _flat(fields[name]) for name in (*_USED, *log.filter) if name in fields and name != _EVENT}
    if is_event:
        used |= {_EVENT: "", **_object(fields.get("event_attributes"))}
    return (name, used) if name else None


def merge(records: Iterable[Part]) -> Iterator[Part]:
    """The search of one query_id, with all its result pages and clicked documents."""
    parts = sorted(records, key=_by_time)
    clicks = [found for found in parts if _EVENT in found.fields]
    queries = [found for found in parts if _EVENT not in found.fields]
    if not queries:
        for name, _ in clicks:
            problem = "the query that its query_id names is in no file of the log"
            yield Part(name, RecordError("unknown_query", f"{problem}; add the file of ubi_queries"))
        return
    name, first = queries[0]
    pages, clicked = [], []
    for record, query in queries:
        if query.get(_QUERY) == first.get(_QUERY):
            pages.append(query)
        else:
            problem = f"another query has its query_id ({name})"
            yield Part(record, RecordError("duplicate_id", f"{problem}; give each search an id of its own"))
    for record, event in clicks:
        try:
            clicked.append(_document(event))
        except ValueError as error:
            problem = f"event_attributes.object.object_id: {error}"
            yield Part(record, RecordError("bad_clicks", f"{problem}; it must name a document"))
    users = (found.fields.get(name) for found in (*queries, *clicks) for name in ("client_id", "user_id"))
    user = next((user for user in users if user and not is_null(user)), None)
    yield Part(name, {**first, COLUMNS.user: user, COLUMNS.clicks: clicked, _HITS: _hits(pages)})


def _unwrapped(record: Fields) -> Mapping[str, Any]:
    if isinstance(record, RecordError):
        raise record
    if not isinstance(record, Mapping):
        problem = f"expected an object, found a {type(record).__name__}"
        raise RecordError("not_an_object", f"{problem}; write one for each query and each event")
    source = record.get("_source")  # as the dump of an index wraps it
    return source if isinstance(source, Mapping) else record


def _action(fields: Mapping[str, Any]) -> Any:
    """What an event is; None for a query, which has a null there if it comes from a table of both."""
    try:
        return scalar(fields.get(_EVENT))
    except ValueError:
        return fields[_EVENT]


def _by_time(found: Part) -> tuple[str, str]:
    try:
        return utc_timestamp(scalar(found.fields.get(COLUMNS.timestamp))), found.record
    except ValueError:
        return "", found.record


def _flat(value: Any) -> Any:
    """`value`, with an empty object for whatever is nested in it: no field that is used nests more than a list."""
    if isinstance(value, list):
        return [{} if isinstance(item, list | dict) else item for item in value]
    return {} if isinstance(value, dict) else value


def _object(attributes: Any) -> dict[str, Any]:
    found = attributes.get("object") if isinstance(attributes, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    return {name: _flat(found[name]) for name in ("object_id", "internal_id") if name in found}


def _document(event: Mapping[str, Any]) -> str:
    name = scalar(event.get("object_id"))
    return identifier(scalar(event.get("internal_id")) if name is None else name)


def _hits(pages: list[Mapping[str, Any]]) -> Any:
    """The documents returned, page after page; of a page whose list is no list, that."""
    hits: list[Any] = []
    for page in pages:
        try:
            hits += many(page.get(_HITS))
        except ValueError:
            return page[_HITS]  # for parse_event to reject
    return hits


def recognises(head: Head, log: Log) -> bool:
    """The first record is a query or an event of UBI."""
    try:
        fields = _unwrapped(decode_json(head.line))
    except RecordError:
        return False
    asked = _QUERY in fields and _ID in fields
    return asked or (_action(fields) is not None and is_null(fields.get(log.fields.query)))


FORMAT = LogFormat(
    endings=jsonl.FORMAT.endings,
    recognises=recognises,
    records=jsonl.records,
    columns=COLUMNS,
    join=Join(part, merge),
    spans=jsonl.FORMAT.spans,
    records_of=jsonl.records_of,
)
