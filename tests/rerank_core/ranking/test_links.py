"""Links between candidates by titles and names: literal cases, most of them traps."""

from __future__ import annotations

import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.ranking.links import named_by, sharing_names, stand_apart

MIN_IDF = 2.3


def test_a_passage_is_named_by_the_texts_that_hold_its_title() -> None:
    titles = ["The Haunting", "Shirley Jackson", "Bennington"]
    texts = [
        "A film after Shirley Jackson's novel.",
        "She lived in Bennington.",
        "A town. Bennington lies in Vermont.",
    ]
    assert named_by(titles, texts, min_idf=MIN_IDF) == [[], [0], [1]]


def test_a_namesake_names_nobody() -> None:
    titles = ["Paris", "Paris (mythology)", "Troy"]
    texts = ["Paris is a city.", "Paris was a prince.", "Paris came to Troy."]
    assert named_by(titles, texts, min_idf=MIN_IDF) == [[2], [2], []]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_titles_are_found_in_any_unicode_form(form: Literal["NFC", "NFD"]) -> None:
    title = unicodedata.normalize(form, "Łódź Käsespätzle")
    assert named_by([title, "Oslo"], ["", "Served: łódź käsespätzle."], min_idf=MIN_IDF) == [[1], []]
    assert stand_apart("recipe for Łódź Käsespätzle", [title], [[]]) == [False]


def test_a_title_that_many_texts_hold_says_nothing() -> None:
    titles = ["United States", *(f"Town {n}" for n in range(20))]
    texts = ["A country.", *["A town of the United States." for _ in range(20)]]
    assert named_by(titles, texts, min_idf=MIN_IDF)[0] == []
    few = named_by(titles[:4], texts[:4], min_idf=MIN_IDF)  # three holders tell little of frequency
    assert few[0] == [1, 2, 3]


def test_only_whole_words_and_no_short_titles() -> None:
    titles = ["Paris", "It", "AC/DC", ""]
    texts = ["It rained.", "Parisian cafes played AC DC.", "", "They call it it."]
    assert named_by(titles, texts, min_idf=MIN_IDF) == [[], [], [1], []]


WORDS = st.lists(st.sampled_from(["rome", "old", "new york", "oslo", "lee"]), max_size=5).map(" ".join)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=8))
def test_it_is_what_looking_for_every_title_in_every_text_gives(passages: list[tuple[str, str]]) -> None:
    titles, texts = [title for title, _ in passages], [text for _, text in passages]
    wanted = [
        [n for n, text in enumerate(texts) if f" {title} " in f" {text} " and titles[n] != title]
        if title
        else []
        for title in titles
    ]
    assert named_by(titles, texts, min_idf=0.0) == wanted


def test_candidates_are_joined_by_the_names_that_they_share() -> None:
    titles = ["The Haunting", "Hill House", "Vermont", "Weather"]
    texts = [
        "A film by Robert Wise. Its score is by Humphrey Searle.",
        "A novel. Robert Wise made it a film.",
        "Humphrey Searle never came here. The Haunting was shown.",
        "It rained. Then the sun shone.",
    ]
    assert sharing_names(titles, texts, min_idf=MIN_IDF) == [[1, 2], [0], [0], []]


def test_passages_of_one_title_are_not_joined_by_their_names() -> None:
    titles = ["Paris", "Paris (mythology)", "Troy"]
    texts = ["On the Seine, said Homer.", "A prince, as Homer said.", "Where Homer was."]
    assert sharing_names(titles, texts, min_idf=MIN_IDF) == [[2], [2], [0, 1]]
    # untitled ones are
    assert sharing_names(["", "", "x"], texts, min_idf=MIN_IDF) == [
        [1, 2],
        [0, 2],
        [0, 1],
    ]


def test_a_name_that_many_hold_joins_none() -> None:
    titles = [f"Town {n}" for n in range(20)]
    texts = [f"A town of the United States.{' Ann Lee came.' * (n in (3, 7))}" for n in range(20)]
    joined = sharing_names(titles, texts, min_idf=MIN_IDF)
    assert {n: others for n, others in enumerate(joined) if others} == {3: [7], 7: [3]}


def test_apart_is_what_neither_the_query_nor_a_candidate_names() -> None:
    titles = ["The Haunting (film)", "Shirley Jackson", "Bennington", "Hill", "", "It"]
    texts = ["After Shirley Jackson.", "She wrote.", "A town of the Haunting.", "Uphill.", "", ""]
    named = named_by(titles, texts, min_idf=MIN_IDF)
    assert stand_apart("who wrote the book of hill house", titles, named) == [False] * 6
    alone = [False, False, False, True, False, False]  # "Bennington" is named by none, but names the film
    assert stand_apart("who wrote the book", titles, named) == alone
    assert stand_apart("who", titles[:2], named_by(titles[:2], ["", ""], min_idf=MIN_IDF)) == [True, True]
    assert stand_apart("The HAUNTING: who?", titles[:2], [[], []]) == [False, True]


def test_no_candidates() -> None:
    assert named_by([], [], min_idf=MIN_IDF) == sharing_names([], [], min_idf=MIN_IDF) == []
    assert stand_apart("who", [], []) == []
