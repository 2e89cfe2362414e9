"""Normal forms of names, and names in queries typed without capitals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.features.names import lower_words, normal_form, occurs_in


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
    assert normal_form(one) == normal_form(other) != ""


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
    assert normal_form(one) != normal_form(other)


def test_what_names_nothing_is_empty_and_a_title_alone_stays() -> None:
    assert [normal_form(text) for text in ("", "...", "—", "'s")] == [""] * 4
    assert normal_form("Queen") == "queen"
    assert normal_form("The The") == "the"
    assert normal_form("Inc.") == "inc"


LETTERS = st.text(alphabet="aAbBéÉßU.S's’ -&12Łø ,", max_size=20)


@given(st.one_of(LETTERS, st.lists(st.sampled_from(["Dr.", "US", "The", "Inc.", "Ann", "A."])).map(" ".join)))
@settings(deadline=None)
def test_a_normal_form_is_its_own(text: str) -> None:
    assert normal_form(normal_form(text)) == normal_form(text)


def test_lower_words_are_words_and_nothing_else() -> None:
    assert lower_words("The U.S. — Ann's  dog!") == "the u s ann s dog"


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
    assert occurs_in(entity, query)


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
    assert not occurs_in(entity, query)
