"""ENT: normal forms, names in queries typed without capitals, and linking within a query's candidates."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.features.entities import Linked, Named, link, normalise, normalise_text, stands_in
from rerank_core.features.ner import LABELS
from schemas.records import Mention


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("U.S.", "US"),
        ("the U.S.A.", "United States of America"),
        ("US", "united states"),
        ("U.S. Army", "United States Army"),
        ("U.K.", "United Kingdom"),
        ("EU", "European Union"),
        ("UN", "the United Nations"),
        ("NYC", "New York City"),
        ("Ann Lee's", "ann lee"),
        ("the Jones'", "Jones"),
        ("Sir Ian McKellen", "Ian McKellen"),
        ("The Beatles", "Beatles"),
        ("Dr. Strange", "Strange"),
        ("Queen Ann Lee", "Ann Lee"),
        ("Jean-Luc Picard", "Jean Luc Picard"),
        ("Jean–Luc Picard", "Jean Luc Picard"),
        ("O'Neil", "o neil"),
        ("J. R. R. Moss", "J.R.R. Moss"),
        ("Zoë Łęcka", "Zoe Lecka"),
        ("Acme, Inc.", "Acme"),
        ("Acme Co. Ltd.", "Acme"),
        ("Bob Moss, Jr.", "Bob Moss"),
        ("Saint Olaf", "St. Olaf"),
    ],
)
def test_mentions_of_one_entity_are_one(one: str, other: str) -> None:
    assert normalise(one) == normalise(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("us", "U.S."),  # tell us
        ("Us", "US"),  # a film
        ("Who", "WHO"),  # a band
        ("un", "UN"),
        ("King George", "George"),
        ("Great Britain", "United Kingdom"),
        ("New York", "New York City"),  # the state
        ("St. Louis", "Louis"),
        ("Saint-Louis Co.", "Louis"),
        ("The Hague Inc.", "Haag"),
        ("US Steel", "Steel"),
    ],
)
def test_what_only_looks_like_one_entity_stays_two(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_what_names_nothing_is_empty_and_a_title_alone_stays() -> None:
    assert [normalise(text) for text in ("", "...", "—", "'s")] == [""] * 4
    assert normalise("Queen") == "queen"
    assert normalise("The The") == "the"
    assert normalise("Inc.") == "inc"


LETTERS = st.text(alphabet="aAbBéÉßU.S's’ -&12Łø ,", max_size=20)


@given(st.one_of(LETTERS, st.lists(st.sampled_from(["Dr.", "US", "The", "Inc.", "Ann", "A."])).map(" ".join)))
@settings(deadline=None)
def test_a_normal_form_is_its_own(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_normalise_text_keeps_words_and_nothing_else() -> None:
    assert normalise_text("The U.S. — Ann's  dog!") == "the u s ann s dog"


@pytest.mark.parametrize(
    ("entity", "query"),
    [
        ("united states", "how large is the US"),
        ("united states", "how large is the U.S."),
        ("united states", "how large is the u.s. navy"),
        ("united states", "population of usa"),
        ("united states", "population of the united states"),
        ("united states army", "US Army ranks"),
        ("ann lee", "ann lee's dog"),
        ("zoe lecka", "poems of Zoë Łęcka"),
        ("jrr moss", "books by j r r moss"),
        ("jrr moss", "books by J.R.R. Moss"),
        ("who", "songs by the Who"),
        ("may", "when did May resign"),
        ("general", "why did General close"),
        ("world health organization", "what does the WHO do"),
        ("new york", "hotels in new york"),
        ("ann", "ann"),
    ],
)
def test_names_are_found_in_queries(entity: str, query: str) -> None:
    assert stands_in(entity, query)


@pytest.mark.parametrize(
    ("entity", "query"),
    [
        ("united states", "tell us who wrote it"),
        ("united states", "TELL US WHO WROTE IT"),
        ("us", "tell us who wrote it"),
        ("who", "who wrote it"),
        ("who", "Who wrote it"),  # a capital that opens the query proves nothing
        ("may", "when may i leave"),
        ("general", "what is general relativity"),
        ("new yorker", "hotels in new york"),
        ("ann", "annual report"),
        ("world health organization", "who says so"),
        ("a", "a b"),
        ("", "anything"),
        ("ann lee", ""),
    ],
)
def test_words_that_only_look_like_the_name(entity: str, query: str) -> None:
    assert not stands_in(entity, query)


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

    assert found == normalise(short.rpartition(":")[2])


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
    assert (
        names(named("", "FTA", "Federal Tea Agency", "Federal Toll Agency"))[0][0] == "fta"
    )  # two such names
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
                mention if normalise(mention.text) == name else mention._replace(text=name)
                for mention, name in zip(old.mentions, new.mentions, strict=True)
            ),
        )
        for old, new in zip(passages, linked, strict=True)
    ]
