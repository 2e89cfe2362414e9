"""Second searches: what is asked, and how the lists are merged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.candidates.expansion import Mode, follow_up, merge, merge_ranked, widen
from rerank_core.text import query_id
from schemas.records import Document, Query, Rejected

LINKED = "Who directed the film that won the Amber Prize?"  # the film's name stands in a passage
PLAIN = "tulsa"
_RANKINGS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=8), max_size=5)


def query(text: str) -> Query:
    return Query(query_id(text), text, 1, 1, ())


def document(doc_id: str, rank: int = 1) -> Document:
    return Document(doc_id, doc_id.title(), f"{doc_id} text", (), 10.0 - rank, rank)


class Index:
    """Finds the documents that it was given, and records the queries."""

    def __init__(self, **found: list[str]) -> None:
        self.found, self.asked = found, list[str]()

    def search(self, texts: Sequence[str]) -> list[list[Document]]:
        self.asked += texts
        return [
            [document(one, rank) for rank, one in enumerate(ids, start=1)]
            for text in texts
            for ids in [next((ids for word, ids in self.found.items() if word in text.lower()), [])]
        ]

    def names(self, documents: Sequence[Document]) -> list[list[str]]:
        return [["Glass River"] if one.doc_id == "prize" else [] for one in documents]

    def widen(self, *texts: str, mode: Mode, top_k: int = 10) -> list[list[str] | Rejected]:
        queries = [query(text) for text in texts]
        found = self.search(texts)
        self.asked.clear()
        made = widen(queries, found, mode=mode, top_k=top_k, search=self.search, names=self.names)
        return [one if isinstance(one, Rejected) else [d.doc_id for d in one] for one in made]


def test_off_asks_nothing() -> None:
    index = Index(prize=["prize"])
    assert index.widen(LINKED, mode="off") == [["prize"]]
    assert index.asked == []


def test_names_of_the_best_passage_find_the_other_half() -> None:
    index = Index(glass=["film", "prize"], prize=["prize", "other"])
    assert index.widen(LINKED, mode="names") == [["prize", "film", "other"]]
    assert index.asked == [f"{LINKED} Glass River"]


def test_a_passage_without_new_names_asks_nothing_more() -> None:
    index = Index(tulsa=["town", "river"])
    assert index.widen(PLAIN, mode="names") == [["town", "river"]]
    assert index.asked == []


def test_parts_are_searched_by_themselves() -> None:
    index = Index(directed=["crew"], amber=["prize"])
    (found,) = index.widen(LINKED, mode="parts")
    assert index.asked
    assert all(asked != LINKED for asked in index.asked)
    assert isinstance(found, list)
    assert set(found) == {"crew", "prize"}
    assert found[0] == "crew"  # the query's own list counts twice


def test_both_follows_the_first_part_too() -> None:
    index = Index(glass=["film"], directed=["crew"], amber=["prize"])
    (found,) = index.widen(LINKED, mode="both")
    assert isinstance(found, list)
    assert "film" in found  # the query's best passage names nothing; that of its first part does


def test_what_found_nothing_stays_as_it_is() -> None:
    missed = Rejected("FetchCandidates", "query", "id", "no_candidates", "nothing")
    index = Index()
    made = widen(
        [query(LINKED), query(PLAIN)],
        [missed, []],
        mode="both",
        top_k=5,
        search=index.search,
        names=index.names,
    )
    assert made == [missed, []]
    assert index.asked == []


def test_equal_texts_are_searched_once() -> None:
    index = Index(glass=["film"], prize=["prize"])
    assert index.widen(LINKED, LINKED, mode="names") == [["film", "prize"]] * 2
    assert len(index.asked) == len(set(index.asked)) == 1


def test_a_merged_list_is_ranked_anew_and_keeps_first_scores() -> None:
    own, more = [document("a", 1), document("b", 2)], [document("c", 1), document("b", 2)]
    found = merge([own, more], top_k=2)
    assert [(one.doc_id, one.bm25_rank, one.bm25_score) for one in found] == [("b", 1, 8.0), ("a", 2, 9.0)]


IDS = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


@given(st.lists(IDS, min_size=1, max_size=4), st.integers(1, 6))
def test_merging_loses_nothing_but_what_lies_below_the_cut(lists: list[list[str]], top_k: int) -> None:
    ranked = [[document(one, rank) for rank, one in enumerate(ids, start=1)] for ids in lists]
    found = merge(ranked, top_k=top_k)
    every = {one for ids in lists for one in ids}
    assert len(found) == min(top_k, len(every))
    assert [one.bm25_rank for one in found] == list(range(1, len(found) + 1))
    assert {one.doc_id for one in found} <= every
    if len(lists) == 1:
        assert [one.doc_id for one in found] == lists[0][:top_k]


@pytest.mark.parametrize("mode", ["parts", "names", "both"])
def test_no_query_gives_more_than_top_k(mode: Mode) -> None:
    index = Index(glass=["film", "x", "y"], prize=["prize", "u", "v", "w"])
    (found,) = index.widen(LINKED, mode=mode, top_k=3)
    assert len(found) == 3


def test_follow_up_adds_the_names_that_the_query_lacks() -> None:
    names = ["Blue Hour", "Mira Holt", "Holt", "Ostra", "mira holt", "Mira Holt"]

    assert follow_up("Who wrote Blue Hour?", names) == "Who wrote Blue Hour? Mira Holt Holt Ostra mira holt"
    assert follow_up("Who wrote Blue Hour?", names, max_names=1) == "Who wrote Blue Hour? Mira Holt"
    assert follow_up("Where is Ostra Bay?", ["Ostra Tower", "Bay"]) == "Where is Ostra Bay? Tower"
    assert follow_up("Who wrote Blue Hour?", ["blue HOUR", "-", ""]) == follow_up("x", []) == ""
    assert follow_up("x", ["Rill"], max_names=0) == ""


def test_follow_up_adds_no_other_spelling_of_a_word_that_the_query_has() -> None:
    assert follow_up("recipes for Spätzle", ["Spa\u0308tzle", "SPÄTZ\u00adLE"]) == ""
    assert follow_up("recipes", ["Spa\u0308tzle"]) == "recipes Spätzle"


def test_fusion_by_hand() -> None:
    assert merge_ranked([["a", "b"], ["b", "c"]]) == ["b", "a", "c"]
    assert merge_ranked([["b"], ["a"]]) == ["a", "b"]  # ties by id
    assert merge_ranked([["b"], ["b"], ["a", "b"]]) == ["b", "a"]
    assert merge_ranked([["a", "x", "y", "z", "b"], ["c", "x", "y", "z", "b"]], k=10)[0] == "x"
    assert merge_ranked([]) == merge_ranked([[]]) == []
    with pytest.raises(ValueError, match="k is -1; it must be at least 0"):
        merge_ranked([], k=-1)


@given(_RANKINGS, st.integers(0, 100))
def test_fusion_against_exact_sums(rankings: list[list[str]], k: int) -> None:
    total: dict[str, Fraction] = {}
    for ranked in rankings:
        for item in set(ranked):
            rank = 1 + len(set(ranked[: ranked.index(item)]))  # distinct ids before its first place
            total[item] = total.get(item, Fraction(0)) + Fraction(1, k + rank)
    merged = merge_ranked(rankings, k=k)

    assert sorted(merged) == sorted(total)
    for above, below in itertools.pairwise(merged):
        near = math.isclose(total[above], total[below], rel_tol=1e-12)  # 1/3 + 1/6 and 1/2 as floats
        assert near or total[above] > total[below]
    assert merged == merge_ranked(rankings[::-1], k=k)


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.integers(0, 100))
def test_fusing_a_list_with_itself_changes_nothing(ranked: list[str], k: int) -> None:
    assert merge_ranked([ranked], k=k) == merge_ranked([ranked] * 3, k=k) == ranked
