"""The nearest published queries, against all of them compared one by one."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightrank.read.nearest import NearestIndex, dice, trigrams
from rerank_core.text import normalise_query

WORDS = st.sampled_from("who wrote Dune dune DUNE Straße ÉTÉ the novel of 東京 solaris".split())
QUERY = st.lists(WORDS, min_size=1, max_size=5).map(" ".join)


def index(texts: list[str], *, size: int = 3) -> NearestIndex:
    parts = [texts[at : at + size] for at in range(0, len(texts), size)]
    return NearestIndex(pa.chunked_array([part], pa.string()) for part in parts)


@given(texts=st.lists(QUERY, max_size=30, unique=True), query=QUERY, n=st.integers(1, 5))
def test_they_are_the_nearest_of_all_that_share_a_word(texts: list[str], query: str, n: int) -> None:
    sharing = [
        text for text in texts if set(text.lower().split()) & set(normalise_query(query).lower().split())
    ]
    compared = sorted((-round(dice(trigrams(query), trigrams(text)), 6), text) for text in sharing)
    found = [(-near.similarity, near.query) for near in index(texts).nearest(query, n)]
    assert found == [(pytest.approx(similarity), text) for similarity, text in compared[:n]]


@given(one=st.text(), other=st.text())
def test_similarity_is_symmetric_and_1_for_the_same_text(one: str, other: str) -> None:
    similarity = dice(trigrams(one), trigrams(other))
    assert 0 <= similarity == dice(trigrams(other), trigrams(one)) <= 1
    assert dice(trigrams(one), trigrams(one)) == 1


def test_a_word_of_everyone_does_not_hide_a_rare_one() -> None:
    texts = [f"the {number}" for number in range(5_000)] + ["the zebra"]
    assert index(texts, size=1_000).nearest("the zebra?", 1)[0].query == "the zebra"
    assert index([]).nearest("the zebra", 1) == []
