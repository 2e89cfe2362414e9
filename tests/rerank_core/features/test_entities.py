"""ENT: linking within a query's candidates, and the query's own entities."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.features.entities import Linked, Named, core_entities, link
from rerank_core.features.names import normal_form
from rerank_core.features.ner import LABELS
from schemas.records import Mention


def named(title: str, *mentions: str, label: str = "MISC") -> Named:
    """A passage of such mentions; "PER:Ann Lee" has a label of its own."""
    split = [text.split(":", 1) if ":" in text else (label, text) for text in mentions]
    return Named(title, tuple(Mention(text, of, n, n + 1) for n, (of, text) in enumerate(split)))


def names(*passages: Named) -> list[tuple[str, ...]]:
    return [one.mentions for one in link(passages)]


def test_a_later_shorter_form_goes_to_the_longer_one_of_its_passage() -> None:
    assert names(named("", "Ann Moss", "Moss"), named("", "Bob Moss", "Moss")) == [
        ("ann moss", "ann moss"),
        ("bob moss", "bob moss"),
    ]


def test_the_title_counts_as_first() -> None:
    assert names(named("Ann Moss (judge)", "Moss"), named("Bob Moss", "Bob Moss")) == [
        ("ann moss",),
        ("bob moss",),
    ]


def test_a_lone_surname_goes_to_the_only_full_name_of_all_passages() -> None:
    assert names(named("", "Moss"), named("Ann Moss"), named("", "Dr. Moss")) == [
        ("ann moss",),
        (),
        ("ann moss",),
    ]


def test_a_surname_of_two_people_stays() -> None:
    assert names(named("", "Moss"), named("Ann Moss"), named("", "Bob Moss")) == [
        ("moss",),
        (),
        ("bob moss",),
    ]
    assert names(named("", "Ann Moss", "Bob Moss", "Moss")) == [("ann moss", "bob moss", "moss")]


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("York", "New York"),
        ("Virginia", "West Virginia"),
        ("Oxford", "University of Oxford"),
        ("Michigan", "Lake Michigan"),
        ("LOC:Georgia", "PER:Ann Georgia"),
        ("Georgia", "PER:Ann Georgia"),  # a country unless the recogniser says otherwise
        ("Stone", "PER:Ann Stone"),  # a word in another passage
        ("Cup", "Harbour Cup"),
        ("ORG:Moss", "PER:Ann Moss"),
        ("Moss", "ORG:Ann Moss"),
        ("Ann", "PER:Ann Moss"),  # first names only within a passage
        ("DNA", "Mouse DNA"),
    ],
)
def test_traps_across_passages(short: str, full: str) -> None:
    (found,), _ = names(named("", short), named("", full))

    assert found == normal_form(short.rpartition(":")[2])


def test_first_names_within_a_passage_need_the_label() -> None:
    assert names(named("", "PER:Ann Moss", "PER:Ann")) == [("ann moss", "ann moss")]
    assert names(named("", "Paris Moss", "Paris")) == [("paris moss", "paris")]


def test_acronyms_go_to_the_name_with_their_initials() -> None:
    assert names(named("", "ORG:Federal Tea Agency", "FTA")) == [("federal tea agency",) * 2]
    assert names(named("", "FTA", "Federal Tea Agency")) == [("federal tea agency",) * 2]  # in either order
    assert names(named("", "Union of Mill Workers", "UMW")) == [("union of mill workers",) * 2]
    assert names(named("", "NFTA"), named("", "National Federal Tea Agency"))[0] == (
        "national federal tea agency",
    )


def test_traps_of_acronyms() -> None:
    assert names(named("", "FTA"), named("", "Federal Tea Agency"))[0] == ("fta",)  # three letters, elsewhere
    # two such names
    assert names(named("", "FTA", "Federal Tea Agency", "Federal Toll Agency"))[0][0] == "fta"
    assert names(named("", "Fta", "Federal Tea Agency"))[0][0] == "fta"  # no acronym
    assert names(named("", "ABC", "PER:Ann Bea Cole"))[0][0] == "abc"  # a person


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Tinted Glass (album)", "tinted glass"),
        ("Salem, Oregon", "salem"),
        ("Earth, Wind & Fire", "earth wind fire"),
        ("(album)", "album"),
        ("The Who", "who"),
        ("", ""),
        ("...", ""),
    ],
)
def test_titles(title: str, expected: str) -> None:
    assert link([Named(title, ())]) == [Linked(expected, ())]


def test_what_names_nothing_stays_in_its_place() -> None:
    assert link([named("", "Ann Moss", "...", "Moss")]) == [Linked("", ("ann moss", "", "ann moss"))]
    assert link([]) == []


FORMS = [
    "Ann Moss",
    "Bob Moss",
    "Moss",
    "Ann",
    "Moss Ann Lee",
    "Lee",
    "Mill Tea Agency",
    "MTA",
    "Agency",
    "York",
]
FORMS += ["New York", "US", "Open Mill Tea Agency", "OMTA", "Dr. Lee", "..."]
MENTIONS = st.tuples(st.sampled_from(FORMS), st.sampled_from(LABELS))
PASSAGES = st.lists(
    st.builds(
        lambda title, mentions: Named(title, tuple(Mention(text, label, 0, 1) for text, label in mentions)),
        st.sampled_from(["", *FORMS]),
        st.lists(MENTIONS, max_size=6),
    ),
    max_size=6,
)


@given(PASSAGES, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=300)
def test_the_order_of_the_passages_does_not_matter(passages: list[Named], rng: random.Random) -> None:
    order = list(range(len(passages)))
    rng.shuffle(order)

    linked = link(passages)

    assert link([passages[n] for n in order]) == [linked[n] for n in order]


@given(PASSAGES)
@settings(deadline=None, max_examples=300)
def test_linking_twice_changes_nothing_more(passages: list[Named]) -> None:
    linked = link(passages)

    assert link(rewritten(passages, linked)) == linked


def rewritten(passages: Sequence[Named], linked: Sequence[Linked]) -> list[Named]:
    """The passages with the canonical form instead of every mention and title that linking changed."""
    return [
        Named(
            old.title if link([Named(old.title, ())])[0].title == new.title else new.title,
            tuple(
                mention if normal_form(mention.text) == name else mention._replace(text=name)
                for mention, name in zip(old.mentions, new.mentions, strict=True)
            ),
        )
        for old, new in zip(passages, linked, strict=True)
    ]


def test_core_entities_are_found_in_queries_without_capitals() -> None:
    names = ("New York", "York", "Ann", "New Yorker")
    named = [Named("", tuple(Mention(name, "LOC", 0, len(name)) for name in names))]
    linked = [Linked("", tuple(name.lower() for name in names))]
    nobody = Linked("", ())

    assert core_entities("hotels in new york", nobody, named, linked) == {"new york", "york"}
    assert core_entities("annual report", Linked("", ("rome", "")), named, linked) == {"rome"}


def test_a_canonical_name_is_found_by_its_short_spelling() -> None:
    named = [Named("", (Mention("Obama", "PER", 0, 5),))]

    assert core_entities("where was obama born", Linked("", ()), named, [Linked("", ("barack obama",))]) == {
        "barack obama"
    }
