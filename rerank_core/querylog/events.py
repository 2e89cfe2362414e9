"""From a record of the query log to an accepted event.

`parse_event` checks one record; `screen` drops it outside the window, masks personal data and hashes the user.
"""

from __future__ import annotations

import contextlib
import datetime
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from rerank_core.config.source import LogFields, Privacy
from rerank_core.querylog.privacy import hash_user, mask, shown
from rerank_core.text import clean, normalise_query, query_id, utf8
from rerank_core.values import RecordError, has_value, identifier, is_null, many, scalar, utc_timestamp
from schemas.records import LogEvent

Window = tuple[datetime.datetime, datetime.datetime]
"""[start, end) in UTC: an event at `start` is inside, one at `end` is not."""

_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # Hangul fillers and Braille's blank: letters without ink
# An event that clicks this share of at least so many documents shown is a program's: no person does.
_PROGRAM_SHOWN, _PROGRAM_SHARE = 5, 0.8

_PRIVACY = Privacy()


class EventError(RecordError):
    """An event that cannot be used."""


class Accepted(NamedTuple):
    """What aggregation needs of one event."""

    query_id: str
    text: str  # normalised and masked
    user: str  # a hash; "" if unknown
    clicks: tuple[str, ...]  # each document once
    positions: tuple[int, ...] = ()  # rank of each click among the documents shown, from 1; 0 if unknown
    time: str = ""  # UTC; "" if the log has no times
    masked: bool = False  # personal data was replaced in the text
    # the documents shown, in order, "" where a place holds none; only if clicks are to be debiased
    shown: tuple[str, ...] = ()
    clicks_all: bool = False  # a program that clicks nearly all documents shown; its `shown` is left out
    typed: str = ""  # as the user typed it; `text` where personal data was masked or it is too long


def parse_event(raw: Any, fields: LogFields, *, record: str) -> LogEvent:
    """Check one record of the log, decoded from JSON, Parquet or text.

    Optional columns (user, clicks, impressions) may be absent or null. A list of one value is that value, and a value
    where a list belongs a list of one; see rerank_core.values for what else counts as the same. The query stays as it
    is; lone surrogates, which UTF-8 cannot encode, are removed from all other values.

    Raises:
        EventError: not_an_object, missing_query, query_not_text, bad_timestamp, bad_user, bad_clicks,
            bad_impressions. Details show nothing of the query and the user, and of other values what `shown` shows.
    """
    if not isinstance(raw, Mapping):
        remedy = (
            "jq -c '.[]' turns an array into lines" if isinstance(raw, list) else "write one for each event"
        )
        raise EventError("not_an_object", f"expected an object, found a {type(raw).__name__}; {remedy}")

    def value(column: str) -> Any:
        return raw.get(column) if column else None

    query = _query(raw.get(fields.query), fields.query)
    return LogEvent(
        record=record,
        timestamp=_timestamp(raw.get(fields.timestamp), fields.timestamp) if fields.timestamp else "",
        query=query,
        user=_user(value(fields.user), fields.user),
        clicks=_ids(value(fields.clicks), fields.clicks, reason="bad_clicks"),
        impressions=_ids(value(fields.impressions), fields.impressions, reason="bad_impressions"),
    )


def passes_filter(raw: Any, log_filter: Mapping[str, str]) -> bool:
    """Whether every field of `log.filter` has the value given there, as text; True for what is no object.

    As in Elasticsearch, a list has the values of its items, and JSON's true is "true".
    """
    if not isinstance(raw, Mapping):
        return True  # for parse_event to reject
    return all(has_value(raw, name, value) for name, value in log_filter.items())


def screen(
    event: LogEvent,
    *,
    window: Window | None,
    max_query_chars: int,
    salt: bytes = b"",
    privacy: Privacy = _PRIVACY,
    keep_shown: bool = False,
) -> Accepted | None:
    """What aggregation needs of `event`; None if it lies outside the window.

    Args:
        event: one event.
        window: [start, end) in UTC; None for a log without times.
        max_query_chars: longer queries are rejected.
        salt: key of the users' hash.
        privacy: whether and what is masked before the query's id is made; messages are masked always. With `min_users`
            above 1 they show nothing of a query, which a single person may have asked.
        keep_shown: whether the result keeps the documents shown, to debias clicks by their ranks.

    Raises:
        EventError: bad_timestamp, empty_query (nothing left after normalisation), query_too_long.
    """
    time = _time(event.timestamp) if window is not None else None
    if window is not None and time is not None and not window[0] <= time < window[1]:
        return None
    normalised = _normalised(event.query, max_chars=max_query_chars, quoting=privacy.min_users == 1)
    text = mask(normalised, also=privacy.mask_also) if privacy.mask else normalised
    as_typed = text == normalised and len(event.query) <= max_query_chars
    # A document counts once per event, however often it was clicked, and at the first place where it was shown.
    clicks = tuple(dict.fromkeys(filter(None, event.clicks)))
    places = _first_places(event.impressions)
    clicks_all = keep_shown and _clicks_all(clicks, places)
    return Accepted(
        query_id=query_id(text),
        text=text,
        user=hash_user(visible_user(event.user), salt),
        clicks=clicks,
        positions=tuple(places.get(doc_id, 0) for doc_id in clicks),
        time=time.isoformat() if time else "",
        masked=text != normalised,
        shown=_each_once(event.impressions, places) if keep_shown and not clicks_all else (),
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


def visible_user(user: str) -> str:
    """`user` without what nobody sees in it, so that one user is not several; "" if nothing is left: nobody."""
    cleaned = unicodedata.normalize("NFC", clean(user))
    return cleaned if any(map(_is_visible, cleaned)) else ""


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZM" and character not in _BLANK_LETTERS


def _first_places(impressions: tuple[str, ...]) -> dict[str, int]:
    """The rank, from 1, at which each document was shown first."""
    places: dict[str, int] = {}
    for rank, doc_id in enumerate(impressions, start=1):
        if doc_id:
            places.setdefault(doc_id, rank)
    return places


def _each_once(impressions: tuple[str, ...], places: Mapping[str, int]) -> tuple[str, ...]:
    """The documents shown, each at its first place; other places keep their rank and hold none."""
    if len(places) == len(impressions):  # nearly always
        return impressions
    return tuple(d if places.get(d) == rank else "" for rank, d in enumerate(impressions, start=1))


def _clicks_all(clicks: tuple[str, ...], places: Mapping[str, int]) -> bool:
    clicked = sum(doc_id in places for doc_id in clicks)
    return len(places) >= _PROGRAM_SHOWN and clicked >= _PROGRAM_SHARE * len(places)


def _time(timestamp: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(utc_timestamp(timestamp))
    except ValueError:
        remedy = 'it must be ISO-8601, or log.fields.timestamp "" for a log without times'
        raise EventError("bad_timestamp", f"the event's time is {shown(timestamp)}; {remedy}") from None


def _query(value: Any, name: str) -> str:
    try:
        query = scalar(value)
    except ValueError as error:
        raise EventError("query_not_text", f"'{name}' is {error}; it must be a string") from None
    if query is None:
        raise EventError("missing_query", f"no value in '{name}', the column that log.fields.query names")
    if not isinstance(query, str):
        # Its value is what somebody searched, of which nothing is shown before users are counted.
        found = type(query).__name__
        raise EventError("query_not_text", f"'{name}' is a {found}; it must be a string")
    return query


def _timestamp(value: Any, name: str) -> str:
    try:
        return utc_timestamp(scalar(value))
    except ValueError:
        expected = (
            "it must be ISO-8601, or seconds, milli-, micro- or nanoseconds since 1970 (years 1980 to 2200)"
        )
        remedy = f'{expected}; for a log without times set log.fields.timestamp = ""'
        raise EventError("bad_timestamp", f"'{name}' is {shown(value)}; {remedy}") from None


def _user(value: Any, name: str) -> str:
    try:
        user = scalar(value)
        return "" if user is None else identifier(user)
    except ValueError as error:
        raise EventError("bad_user", f"'{name}': {error}; it must be a string or an integer") from None


def _ids(value: Any, name: str, *, reason: str) -> tuple[str, ...]:
    """Doc ids; "" stands for a null in a list, so that what follows it keeps its rank."""
    try:
        items = many(value)
    except ValueError as error:
        raise EventError(reason, f"'{name}' is {error}; write the doc ids as a JSON list") from None
    with contextlib.suppress(TypeError):  # not all are strings
        if "".join(items).isascii():  # nearly always
            return tuple(items)
    ids = []
    for item in items:
        try:
            ids.append("" if is_null(item) else identifier(item))
        except ValueError:
            raise EventError(
                reason, f"'{name}' holds {shown(item)}; doc ids are strings or integers"
            ) from None
    return tuple(ids)
