"""From a record of the log to an event: parsing, and the screening of what may not be used."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rerank_core.config.night import LogFields
from rerank_core.querylog.privacy import hash_user, mask
from rerank_core.text import normalise_query, query_id, shorten, utf8
from schemas.records import LogEvent

Window = tuple[datetime.datetime, datetime.datetime]
"""[start, end) in UTC: an event at `start` is inside, one at `end` is not."""

_MILLISECONDS_FROM = 1e11  # as seconds this is the year 5138, as milliseconds 1973
_SHOWN = 80
_LIST, _NEARLY_ALL = (
    5,
    0.8,
)  # documents from which a list is one, and share of them whose clicks are a program's


class EventError(ValueError):
    """An event that cannot be used: `reason` is a stable slug, `detail` says why, and names no user."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Accepted(NamedTuple):
    """What aggregation needs of one event."""

    query_id: str
    text: str  # normalised, and masked
    user: str  # a hash; "" where unknown
    clicks: tuple[str, ...]
    positions: tuple[int, ...] = ()  # place of each click among the documents shown, from 1; 0 where unknown
    time: str = ""  # UTC; "" where the log has no times
    masked: bool = False  # personal data was taken out of the text
    shown: tuple[str, ...] = ()  # the documents shown, in order, where clicks are to be debiased
    clicks_all: bool = False  # a program's: nobody clicks nearly all that is shown; it says nothing of places


def parse_event(raw: Any, fields: LogFields, *, record: str) -> LogEvent:
    """Check one record of the log, decoded from JSON or Parquet.

    Optional columns (user, clicks, impressions) may be absent or null. The query stays as it is; all else
    loses lone surrogates, which no UTF-8 writer takes.

    Raises:
        EventError: not_an_object, missing_query, query_not_text, bad_timestamp, bad_user, bad_clicks,
            bad_impressions. Details quote plain values only: a nested one may hold who asked.
    """
    if not isinstance(raw, Mapping):
        hint = "; one event a line: jq -c '.[]' turns an array into lines" if isinstance(raw, list) else ""
        raise EventError("not_an_object", f"expected an object, found {_shown(raw)}{hint}")
    query = raw.get(fields.query)
    if query is None:
        raise EventError(
            "missing_query", f"no value in '{fields.query}', the column that log.fields.query names"
        )
    if not isinstance(query, str):
        raise EventError("query_not_text", f"'{fields.query}' is {mask(_shown(query))}; it must be a string")
    return LogEvent(
        record=record,
        timestamp=_timestamp(raw.get(fields.timestamp), fields.timestamp) if fields.timestamp else "",
        query=query,
        user=_user(raw.get(fields.user), fields.user) if fields.user else "",
        clicks=_ids(raw.get(fields.clicks), fields.clicks, reason="bad_clicks") if fields.clicks else (),
        impressions=_ids(raw.get(fields.impressions), fields.impressions, reason="bad_impressions")
        if fields.impressions
        else (),
    )


def wanted(raw: Any, log_filter: Mapping[str, str]) -> bool:
    """Whether a record passes `log.filter`: every field named there has that value as a string."""
    if not isinstance(raw, Mapping):
        return True  # nothing to filter by: parse_event says what is wrong with it
    return all(str(raw.get(name)) == value for name, value in log_filter.items())


_UTC = (".000Z", "Z", "+00:00", ".000+00:00")


def utc_timestamp(value: Any) -> str:
    """A time as ISO-8601 in UTC, "2026-03-02T10:00:00+00:00".

    Args:
        value: an ISO-8601 string or a datetime (without an offset: UTC), or epoch seconds or milliseconds
            (numbers from 1e11 on: what they would mean as seconds lies after the year 5000).

    Raises:
        ValueError: it is none of these, or no time between the years 1 and 9999.
    """
    try:
        if isinstance(value, str):
            if value[19:] in _UTC and value[4] == value[7] == "-" and value[10] == "T":  # nearly always
                datetime.datetime.fromisoformat(value)
                return f"{value[:19]}+00:00"
            value = datetime.datetime.fromisoformat(value.strip())
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
            value = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        if not isinstance(value, datetime.datetime):
            raise ValueError(f"{type(value).__name__} is no time")
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
    places: bool = False,
) -> Accepted | None:
    """What aggregation takes of `event`; None if it lies outside the window.

    Args:
        event: one event.
        window: [start, end) in UTC; None for a log without times.
        max_query_chars: longer queries are rejected.
        salt: key of the users' hash.
        masking: whether personal data is masked, before the query's id is made. Messages never quote it.
        places: whether what was shown is kept, place by place.

    Raises:
        EventError: bad_timestamp, empty_query (nothing left after normalisation), query_too_long.
    """
    time = _time(event.timestamp) if window is not None else None
    if window is not None and time is not None and not window[0] <= time < window[1]:
        return None
    typed = normalise_query(event.query)
    if not typed:
        found = f"{len(event.query)} characters, all white space, punctuation or invisible"
        raise EventError("empty_query", f"nothing is left of the query after normalisation: {found}")
    if len(typed) > max_query_chars:
        limit = f"the limit is {max_query_chars}: raise log.max_query_chars to keep such queries"
        start = repr(
            mask(typed[: 3 * _SHOWN])[:_SHOWN]
        )  # more than is shown: a number cut in two is not masked
        raise EventError(
            "query_too_long", f"the query has {len(typed)} characters, {limit}; it starts {start}"
        )
    text = mask(typed) if masking else typed
    clicks_all = places and _clicks_all(event)
    return Accepted(
        query_id=query_id(text),
        text=text,
        user=hash_user(event.user, salt),
        clicks=event.clicks,
        positions=_positions(event),
        time=time.isoformat() if time else "",
        masked=text != typed,
        shown=event.impressions if places and not clicks_all else (),
        clicks_all=clicks_all,
    )


def _clicks_all(event: LogEvent) -> bool:
    shown = set(event.impressions)
    return len(shown) >= _LIST and len(shown & set(event.clicks)) >= _NEARLY_ALL * len(shown)


def _positions(event: LogEvent) -> tuple[int, ...]:
    shown: dict[str, int] = {}
    for position, doc_id in enumerate(event.impressions, start=1):
        shown.setdefault(doc_id, position)
    return tuple(shown.get(doc_id, 0) for doc_id in event.clicks)


def _time(timestamp: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(utc_timestamp(timestamp))
    except ValueError:
        remedy = 'it must be ISO-8601, or log.fields.timestamp "" for a log without times'
        raise EventError("bad_timestamp", f"the event's time is {_shown(timestamp)}; {remedy}") from None


def _timestamp(value: Any, name: str) -> str:
    try:
        return utc_timestamp(value)
    except ValueError:
        expected = "it must be ISO-8601, or epoch seconds or milliseconds"
        remedy = f'{expected}; for a log without times set log.fields.timestamp = ""'
        raise EventError("bad_timestamp", f"'{name}' is {_shown(value)}; {remedy}") from None


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
        raise EventError(reason, f"'{name}' is {_shown(value)}; it must be a list of doc ids")
    with contextlib.suppress(TypeError):  # ids that are numbers, or no ids at all
        if "".join(value).isascii():  # nearly always
            return tuple(value)
    for item in value:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise EventError(reason, f"'{name}' holds {_shown(item)}; doc ids are strings or integers")
    return tuple(utf8(str(item)) for item in value)


def _shown(value: Any) -> str:
    """A plain value, shortened; of a nested one its type alone."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return shorten(repr(value), limit=_SHOWN)
    return f"a {type(value).__name__}"
