"""Titles in other candidates' texts: literal cases, most of them traps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rerank_core.features.titles import named_by

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


def test_no_candidates() -> None:
    assert named_by([], [], min_idf=MIN_IDF) == []
