"""From a record of the query log to an accepted event.

`parse_event` checks one record; `screen` drops it outside the window, masks personal data and hashes the user.
"""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rerank_core.config.night import LogFields
from rerank_core.querylog.privacy import hash_user, mask, shown
from rerank_core.text import normalise_query, query_id, utf8
from schemas.records import LogEvent

Window = tuple[datetime.datetime, datetime.datetime]
"""[start, end) in UTC: an event at `start` is inside, one at `end` is not."""

_UTC_SUFFIXES = (".000Z", "Z", "+00:00", ".000+00:00")
_MILLISECONDS_FROM = 1e11  # as seconds this is the year 5138, as milliseconds 1973
# An event that clicks this share of at least so many documents shown is a program's: no person does.
_PROGRAM_SHOWN, _PROGRAM_SHARE = 5, 0.8


class EventError(ValueError):
    """An event that cannot be used: `reason` is a stable slug, `detail` explains it and names no user."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Accepted(NamedTuple):
    """What aggregation needs of one event."""

    query_id: str
    text: str  # normalised and masked
    user: str  # a hash; "" if unknown
    clicks: tuple[str, ...]
    positions: tuple[int, ...] = ()  # rank of each click among the documents shown, from 1; 0 if unknown
    time: str = ""  # UTC; "" if the log has no times
    masked: bool = False  # personal data was replaced in the text
    shown: tuple[str, ...] = ()  # the documents shown, in order; only if clicks are to be debiased
    clicks_all: bool = False  # a program that clicks nearly all documents shown; its `shown` is left out
    typed: str = ""  # as the user typed it; `text` where personal data was masked or it is too long


def parse_event(raw: Any, fields: LogFields, *, record: str) -> LogEvent:
    """Check one record of the log, decoded from JSON or Parquet.

    Optional columns (user, clicks, impressions) may be absent or null. The query stays as it is; lone surrogates, which
    UTF-8 cannot encode, are removed from all other values.

    Raises:
        EventError: not_an_object, missing_query, query_not_text, bad_timestamp, bad_user, bad_clicks,
            bad_impressions. Details show nothing of the query and the user, and of other values what `shown` shows.
    """
    if not isinstance(raw, Mapping):
        hint = "; one event a line: jq -c '.[]' turns an array into lines" if isinstance(raw, list) else ""
        raise EventError("not_an_object", f"expected an object, found a {type(raw).__name__}{hint}")

    def value(column: str) -> Any:
        return raw.get(column) if column else None

    query = raw.get(fields.query)
    if query is None:
        raise EventError(
            "missing_query", f"no value in '{fields.query}', the column that log.fields.query names"
        )
    if not isinstance(query, str):
        # Its value is what somebody searched, of which nothing is shown before users are counted.
        found = type(query).__name__
        raise EventError("query_not_text", f"'{fields.query}' is a {found}; it must be a string")
    return LogEvent(
        record=record,
        timestamp=_timestamp(raw.get(fields.timestamp), fields.timestamp) if fields.timestamp else "",
        query=query,
        user=_user(value(fields.user), fields.user),
        clicks=_ids(value(fields.clicks), fields.clicks, reason="bad_clicks"),
        impressions=_ids(value(fields.impressions), fields.impressions, reason="bad_impressions"),
    )


def passes_filter(raw: Any, log_filter: Mapping[str, str]) -> bool:
    """Whether every field of `log.filter` has the value given there, as a string; True for what is no object."""
    if not isinstance(raw, Mapping):
        return True  # for parse_event to reject
    return all(str(raw.get(name)) == value for name, value in log_filter.items())


def utc_timestamp(value: Any) -> str:
    """A time as ISO-8601 in UTC, "2026-03-02T10:00:00+00:00".

    Args:
        value: an ISO-8601 string or a datetime (without an offset: UTC), or epoch seconds or milliseconds
            (numbers from 1e11 on: what they would mean as seconds lies after the year 5000).

    Raises:
        ValueError: it is none of these, or not between the years 1 and 9999.
    """
    try:
        if isinstance(value, str):
            # The usual form, which needs no conversion.
            if value[19:] in _UTC_SUFFIXES and value[4] == value[7] == "-" and value[10] == "T":
                datetime.datetime.fromisoformat(value)
                return f"{value[:19]}+00:00"
            value = datetime.datetime.fromisoformat(value.strip())
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
            value = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        if not isinstance(value, datetime.datetime):
            raise ValueError(f"a {type(value).__name__} is not a time")
        time = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        utc: str = time.astimezone(datetime.UTC).isoformat()
        return utc
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from None


def screen(
    event: LogEvent,
    *,
    window: Window | None,
    max_query_chars: int,
    salt: bytes = b"",
    masking: bool = True,
    quoting: bool = True,
    keep_shown: bool = False,
) -> Accepted | None:
    """What aggregation needs of `event`; None if it lies outside the window.

    Args:
        event: one event.
        window: [start, end) in UTC; None for a log without times.
        max_query_chars: longer queries are rejected.
        salt: key of the users' hash.
        masking: whether personal data is masked, before the query's id is made. Messages always mask it.
        quoting: whether the message of a query that is too long quotes its beginning; not where a query of a single
            person must not be published.
        keep_shown: whether the result keeps the documents shown, to debias clicks by their ranks.

    Raises:
        EventError: bad_timestamp, empty_query (nothing left after normalisation), query_too_long.
    """
    time = _time(event.timestamp) if window is not None else None
    if window is not None and time is not None and not window[0] <= time < window[1]:
        return None
    normalised = _normalised(event.query, max_chars=max_query_chars, quoting=quoting)
    text = mask(normalised) if masking else normalised
    as_typed = text == normalised and len(event.query) <= max_query_chars
    clicks_all = keep_shown and _clicks_all(event)
    return Accepted(
        query_id=query_id(text),
        text=text,
        user=hash_user(event.user, salt),
        clicks=event.clicks,
        positions=_positions(event),
        time=time.isoformat() if time else "",
        masked=text != normalised,
        shown=event.impressions if keep_shown and not clicks_all else (),
        clicks_all=clicks_all,
        typed=utf8(event.query) if as_typed else text,
    )


def _normalised(query: str, *, max_chars: int, quoting: bool) -> str:
    typed = normalise_query(query)
    if not typed:
        characters = f"{len(query)} characters, all white space, punctuation or invisible"
        raise EventError("empty_query", f"nothing is left of the query after normalisation: {characters}")
    if len(typed) > max_chars:
        limit = f"the limit is {max_chars}: raise log.max_query_chars to keep such queries"
        start = f"; it starts {shown(typed)}" if quoting else ""
        raise EventError("query_too_long", f"the query has {len(typed)} characters, {limit}{start}")
    return typed


def _clicks_all(event: LogEvent) -> bool:
    shown = set(event.impressions)
    return len(shown) >= _PROGRAM_SHOWN and len(shown & set(event.clicks)) >= _PROGRAM_SHARE * len(shown)


def _positions(event: LogEvent) -> tuple[int, ...]:
    ranks: dict[str, int] = {}
    for rank, doc_id in enumerate(event.impressions, start=1):
        ranks.setdefault(doc_id, rank)
    return tuple(ranks.get(doc_id, 0) for doc_id in event.clicks)


def _time(timestamp: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(utc_timestamp(timestamp))
    except ValueError:
        remedy = 'it must be ISO-8601, or log.fields.timestamp "" for a log without times'
        raise EventError("bad_timestamp", f"the event's time is {shown(timestamp)}; {remedy}") from None


def _timestamp(value: Any, name: str) -> str:
    try:
        return utc_timestamp(value)
    except ValueError:
        expected = "it must be ISO-8601, or epoch seconds or milliseconds"
        remedy = f'{expected}; for a log without times set log.fields.timestamp = ""'
        raise EventError("bad_timestamp", f"'{name}' is {shown(value)}; {remedy}") from None


def _user(value: Any, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise EventError(
            "bad_user", f"'{name}' is a {type(value).__name__}; it must be a string or an integer"
        )
    return utf8(str(value))


def _ids(value: Any, name: str, *, reason: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise EventError(reason, f"'{name}' is {shown(value)}; it must be a list of doc ids")
    with contextlib.suppress(TypeError):  # not all are strings
        if "".join(value).isascii():  # nearly always
            return tuple(value)
    for item in value:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise EventError(reason, f"'{name}' holds {shown(item)}; doc ids are strings or integers")
    return tuple(utf8(str(item)) for item in value)
