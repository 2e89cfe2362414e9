"""Titles in queries and in other candidates' texts: literal cases, most of them traps."""

from __future__ import annotations

import pytest

from rerank_core.features.titles import in_query, named_by

MIN_IDF = 2.3


@pytest.mark.parametrize(
    ("query", "title", "found"),
    [
        ("who wrote The Haunting of Hill House", "The Haunting of Hill House", True),
        ("who wrote the haunting of hill house?", "The Haunting of Hill House", True),
        ("where is paris", "Paris (mythology)", True),  # a bracket only tells namesakes apart
        ("comparison of trains", "Paris", False),
        ("parisian cafes", "Paris", False),  # whole words
        ("what is it", "It", False),  # too short to mean anything
        ("anything", "", False),
        ("", "Paris", False),
        ("what is AC/DC's first album", "AC/DC", True),
    ],
)
def test_in_query(query: str, title: str, found: bool) -> None:
    assert in_query(query, [title]) == [found]


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


def test_no_candidates() -> None:
    assert named_by([], [], min_idf=MIN_IDF) == []
