"""Overlap and rank correlation, against their definitions and scipy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from rerank_core.drift.ranks import overlap_at, rank_correlation

COMMON = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=2)
RANKING = st.lists(st.sampled_from("abcdefghijklmnop"), unique=True, max_size=16)


@given(data=st.data(), common=COMMON)
def test_the_correlation_is_kendalls_tau_of_the_common_ids(data: st.DataObject, common: list[str]) -> None:
    one = data.draw(st.permutations([*common, *data.draw(st.lists(st.sampled_from("ijkl"), unique=True))]))
    other = data.draw(st.permutations([*common, *data.draw(st.lists(st.sampled_from("mnop"), unique=True))]))
    expected = kendalltau([one.index(name) for name in common], [other.index(name) for name in common])
    assert rank_correlation(one, other) == pytest.approx(expected.statistic)
    assert rank_correlation(one, other) == rank_correlation(other, one)
    assert rank_correlation(one, one[::-1]) == -1
    assert rank_correlation(one, one) == 1


@pytest.mark.parametrize(("one", "other"), [("", ""), ("a", "a"), ("ab", "bc"), ("abc", "")])
def test_fewer_than_two_common_ids_have_no_correlation(one: str, other: str) -> None:
    assert rank_correlation(one, other) is None


@given(one=RANKING, other=RANKING, k=st.integers(1, 20))
def test_the_overlap_is_a_share(one: list[str], other: list[str], k: int) -> None:
    found = overlap_at(one, other, k)
    assert 0 <= found <= 1
    assert found == overlap_at(other, one, k)
    assert overlap_at(one, one, k) == 1
    assert (found == 1) == (set(one[:k]) == set(other[:k]))


def test_the_overlap_by_hand() -> None:
    assert overlap_at("abcd", "bcxa", 2) == 0.5
    assert overlap_at("abc", "abcdefghij", 10) == 0.3
    assert overlap_at("", "", 10) == 1
    assert overlap_at("", "a", 10) == 0
    with pytest.raises(ValueError, match="k is 0"):
        overlap_at("a", "a", 0)
