"""From accepted events to distinct queries, as pure functions whose result depends on no order and no grouping.

`cap_user` bounds the weight of one user; `accumulate`, `merge` and `finish` fold the events of one query into a Query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rerank_core.querylog.events import Accepted
from rerank_core.text import query_id
from schemas.records import Query, ShownAtRank


class UserEvents(NamedTuple):
    """The events of one user for one query: those that count, and the number of those that do not."""

    kept: tuple[Accepted, ...]
    capped: int


def cap_user(parts: Iterable[UserEvents], *, limit: int) -> UserEvents:
    """The union of all parts, of whose events the `limit` earliest count: no bot weighs more than that.

    Associative and commutative: ties in time are broken by text and clicks.
    """
    parts = list(parts)
    kept = sorted((event for part in parts for event in part.kept), key=lambda event: (event.time, event))
    return UserEvents(tuple(kept[:limit]), sum(part.capped for part in parts) + len(kept[limit:]))


class Tally(NamedTuple):
    """The events of one query, folded. `accumulate` changes it in place: never share one."""

    spellings: dict[tuple[str, str], int]  # (text, as typed) -> events
    clicks: dict[str, tuple[int, int, int]]  # doc_id -> clicks, clicks with a known rank, sum of those ranks
    users: int
    first_seen: str  # "" if unknown
    last_seen: str
    shown: dict[tuple[str, int], tuple[int, int]]  # (doc_id, rank) -> impressions, clicks


def empty_tally() -> Tally:
    return Tally({}, {}, 0, "", "", {})


def accumulate(tally: Tally, events: Iterable[Accepted]) -> Tally:
    """`tally` with the events of one more user, or with events of unknown users; `tally` itself is consumed.

    All of a user's events for the query must come in one call, since each call counts one user.
    """
    events = list(events)
    for event in events:
        spelling = event.text, event.typed
        tally.spellings[spelling] = tally.spellings.get(spelling, 0) + 1
        positions = event.positions or (0,) * len(event.clicks)
        for doc_id, position in zip(event.clicks, positions, strict=True):
            clicks, ranked, total = tally.clicks.get(doc_id, (0, 0, 0))
            tally.clicks[doc_id] = (clicks + 1, ranked + (position > 0), total + position)
        clicked = set(event.clicks)
        for rank, doc_id in enumerate(event.shown, start=1):
            if not doc_id:
                continue
            impressions, clicks = tally.shown.get((doc_id, rank), (0, 0))
            tally.shown[doc_id, rank] = (impressions + 1, clicks + (doc_id in clicked))
    times = [event.time for event in events if event.time]
    return tally._replace(
        users=tally.users + any(event.user for event in events),
        first_seen=_earliest(tally.first_seen, *times),
        last_seen=max(tally.last_seen, *times, ""),
    )


def merge(tallies: Iterable[Tally]) -> Tally:
    """One new tally of all events; associative and commutative in what `finish` makes of it."""
    tallies = list(tallies)
    spellings: Counter[tuple[str, str]] = Counter()
    clicks: dict[str, tuple[int, int, int]] = {}
    shown: dict[tuple[str, int], tuple[int, int]] = {}
    for tally in tallies:
        spellings.update(tally.spellings)
        for doc_id, (count, ranked, total) in tally.clicks.items():
            so_far = clicks.get(doc_id, (0, 0, 0))
            clicks[doc_id] = (so_far[0] + count, so_far[1] + ranked, so_far[2] + total)
        for at, (impressions, clicked) in tally.shown.items():
            seen = shown.get(at, (0, 0))
            shown[at] = (seen[0] + impressions, seen[1] + clicked)
    return Tally(
        dict(spellings),
        clicks,
        users=sum(tally.users for tally in tallies),
        first_seen=_earliest(*(tally.first_seen for tally in tallies)),
        last_seen=max((tally.last_seen for tally in tallies), default=""),
        shown=shown,
    )


def _earliest(*times: str) -> str:
    return min(filter(None, times), default="")


def finish(tally: Tally) -> Query:
    """The query of a non-empty tally.

    Its text is the most frequent spelling, ties broken by the smallest; `typed` is the most frequent form in which that
    was typed, ties broken by the text itself, then by the smallest.
    """
    texts: Counter[str] = Counter()
    for (spelling, _), count in tally.spellings.items():
        texts[spelling] += count
    text = min(texts, key=lambda spelling: (-texts[spelling], spelling))
    forms = {form: count for (spelling, form), count in tally.spellings.items() if spelling == text}
    typed = min(forms, key=lambda form: (-forms[form], form != text, form))
    clicks = sorted(tally.clicks.items())
    return Query(
        query_id=query_id(text),
        text=text,
        count=sum(tally.spellings.values()),
        users=tally.users,
        clicks=tuple((doc_id, count) for doc_id, (count, _, _) in clicks),
        click_positions=tuple(total / ranked if ranked else 0.0 for _, (_, ranked, total) in clicks),
        first_seen=tally.first_seen,
        last_seen=tally.last_seen,
        shown=_by_document(tally.shown),
        typed=typed if typed != text else "",
    )


def _by_document(
    shown: Mapping[tuple[str, int], tuple[int, int]],
) -> tuple[tuple[str, tuple[ShownAtRank, ...]], ...]:
    documents: dict[str, list[ShownAtRank]] = {}
    for (doc_id, rank), counts in sorted(shown.items()):
        documents.setdefault(doc_id, []).append(ShownAtRank(rank, *counts))
    return tuple((doc_id, tuple(ranks)) for doc_id, ranks in documents.items())
