"""Aggregation of events into queries does not depend on order or grouping."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from rerank_core.querylog.aggregate import Tally, UserEvents, accumulate, cap_user, empty_tally, finish, merge
from rerank_core.querylog.events import Accepted
from rerank_core.text import query_id
from schemas.records import Query, ShownAtRank

TIME = "2026-03-02T10:00:00+00:00"


def moment(number: int, *, text: str = "q") -> Accepted:
    return Accepted(query_id("q"), text, "u", (), (), f"2026-03-02T10:00:0{number}+00:00")


moments = st.lists(st.builds(moment, st.integers(0, 9), text=st.sampled_from(["q", "Q"])), max_size=8)


@given(moments, moments, moments, st.integers(1, 5))
def test_capping_is_associative_and_commutative(
    a: list[Accepted], b: list[Accepted], c: list[Accepted], limit: int
) -> None:
    def capped(*parts: UserEvents) -> UserEvents:
        return cap_user(parts, limit=limit)

    x, y, z = (UserEvents(tuple(part), 0) for part in (a, b, c))
    whole = cap_user([UserEvents((*a, *b, *c), 0)], limit=limit)
    assert capped(capped(x, y), z) == capped(x, capped(z, y)) == capped(z, y, x) == whole
    assert len(whole.kept) + whole.capped == len(a) + len(b) + len(c)
    assert [one.time for one in whole.kept] == sorted(one.time for one in (*a, *b, *c))[:limit]


# --- accumulate, merge, finish

SPELLINGS = ["Who is it", "who is it", "WHO IS IT"]
clicked = st.lists(st.tuples(st.sampled_from(["d1", "d2", "d3"]), st.integers(0, 5)), max_size=3)


@st.composite
def accepted_events(draw: st.DrawFn) -> Accepted:
    clicks = draw(clicked)
    return Accepted(
        query_id(SPELLINGS[0]),
        draw(st.sampled_from(SPELLINGS)),
        draw(st.sampled_from(["", "u1", "u2", "u3"])),
        tuple(doc for doc, _ in clicks),
        tuple(position for _, position in clicks),
        draw(st.sampled_from(["", "2026-03-02T10:00:00+00:00", "2026-03-02T10:00:00.5+00:00", TIME])),
        shown=tuple(draw(st.lists(st.sampled_from(["d1", "d2", "d3"]), max_size=3))),
    )


def oracle(events: list[Accepted]) -> Query:
    """The aggregate by the definition, with nothing folded."""
    texts = [one.text for one in events]
    best = max(texts.count(text) for text in texts)
    places: dict[str, list[int]] = {}
    for one in events:
        for doc, place in zip(one.clicks, one.positions, strict=True):
            places.setdefault(doc, []).append(place)
    known = {doc: [place for place in found if place] for doc, found in places.items()}
    times = sorted(one.time for one in events if one.time) or [""]
    seen = [(doc, n, doc in one.clicks) for one in events for n, doc in enumerate(one.shown, start=1)]
    return Query(
        query_id(texts[0]),
        min(text for text in texts if texts.count(text) == best),
        len(events),
        len({one.user for one in events if one.user}),
        tuple((doc, len(places[doc])) for doc in sorted(places)),
        tuple(sum(known[doc]) / len(known[doc]) if known[doc] else 0.0 for doc in sorted(places)),
        times[0],
        times[-1],
        tuple(
            (
                doc,
                tuple(
                    ShownAtRank(place, len(clicks), sum(clicks))
                    for place in (1, 2, 3)
                    if (clicks := [clicked for *where, clicked in seen if where == [doc, place]])
                ),
            )
            for doc in sorted({doc for doc, _, _ in seen})
        ),
    )


def by_user(events: list[Accepted]) -> list[list[Accepted]]:
    """The events of each user together, as `accumulate` wants them; those of nobody known one by one."""
    users = {one.user for one in events if one.user}
    return [
        *([one for one in events if one.user == user] for user in sorted(users)),
        *([one] for one in events if not one.user),
    ]


def fold(groups: list[list[Accepted]]) -> Tally:
    tally = empty_tally()
    for group in groups:
        tally = accumulate(tally, group)
    return tally


@given(st.data(), st.lists(accepted_events(), min_size=1, max_size=12))
def test_any_order_and_any_grouping_give_the_oracle(data: st.DataObject, events: list[Accepted]) -> None:
    shuffled = data.draw(st.permutations(by_user(events)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    ends = [0, *cuts, len(shuffled)]
    parts = [fold(shuffled[start:end]) for start, end in itertools.pairwise(ends)]
    assert finish(merge(parts)) == oracle(events)


@given(*[st.lists(accepted_events(), max_size=5)] * 3)
def test_merge_is_associative_and_commutative(
    a: list[Accepted], b: list[Accepted], c: list[Accepted]
) -> None:
    x, y, z = by_user(a), by_user(b), by_user(c)
    left = merge([merge([fold(x), fold(y)]), fold(z)])
    assert left == merge([fold(x), merge([fold(y), fold(z)])])
    assert left == merge([fold(z), fold(y), fold(x)])
    assert merge([left, empty_tally()]) == left


def test_merge_leaves_its_inputs_alone() -> None:
    one = fold([[Accepted("x", "q", "u1", ("d1",))]])
    other = fold([[Accepted("x", "q", "u2", ("d1",))]])
    merged = merge([one, other])
    accumulate(merged, [Accepted("x", "q", "u3", ("d1",))])
    assert finish(one) == Query(query_id("q"), "q", 1, 1, (("d1", 1),), (0.0,))
    assert finish(other) == finish(one)


def test_the_text_is_the_commonest_spelling_then_the_smallest() -> None:
    def text(*spellings: str) -> str:
        return finish(fold([[Accepted("x", spelling, "", ())] for spelling in spellings])).text

    assert text("b", "B", "b") == "b"
    assert text("b", "B") == "B"


def test_the_form_most_often_typed_is_kept_of_the_text() -> None:
    def typed(*forms: tuple[str, str]) -> str:
        events = [Accepted("x", text, "", (), typed=form) for text, form in forms]
        query = finish(fold([events]))
        assert finish(merge(fold([[event]]) for event in events))._replace(users=0) == query._replace(users=0)
        return query.typed

    assert typed(("a", "a?"), ("a", "a"), ("a", "a?"), ("A", "A!"), ("A", "A!")) == "a?"
    assert typed(("a", "a?"), ("a", "a")) == ""  # as its text
    assert typed(("a", "a?"), ("a", "a ")) == "a "


def test_unknown_users_do_not_count() -> None:
    query = finish(fold([[Accepted("x", "q", user, ())] for user in ("", "", "u1")]))
    assert (query.count, query.users) == (3, 1)
