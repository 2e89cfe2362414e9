"""Copies of a positive: what they are, what they are not, and that no mined negative is one."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.config.labels import Mining
from rerank_core.mining.copies import Copies, shingles
from rerank_core.mining.hard_negatives import mine, training_pairs
from rerank_core.ranking.order import rank
from rerank_core.text import normalise_query
from schemas.records import Candidate, Query, QueryGroup, RankedGroup, ScoredCandidate

LONG = " ".join(f"word{n}" for n in range(100))
CHINESE = "北京是中华人民共和国的首都也是全国的政治文化中心和国际交往中心" * 3


@pytest.mark.parametrize(
    ("title", "text", "rule"),
    [
        ("Leave", "Sixteen weeks of leave.", "positive_copy"),
        ("leave", " SIXTEEN  weeks of\u200b leave", "positive_copy"),
        ("Another title", "Sixteen weeks of leave.", "positive_copy"),
        ("", "Leave Sixteen weeks of leave.", "positive_copy"),
        ("Leave", "Ten weeks of leave.", ""),
        ("", "He says: Sixteen weeks of leave. But not for all.", ""),  # too short to be told from a mention
        ("", f"{LONG} and a footer", "near_copy"),
        ("", f"News: {LONG.upper()}!", "near_copy"),
        ("", LONG.replace("word50", "other"), "near_copy"),
        ("", LONG.replace("word5", "other"), ""),
        ("", LONG[: len(LONG) // 2], ""),  # a part of it may lack what answers the query
        ("", CHINESE + "北", "near_copy"),
        ("", CHINESE[:20], ""),
    ],
)
def test_a_copy_has_the_words_of_a_positive(title: str, text: str, rule: str) -> None:
    copies = Copies([("Leave", "Sixteen weeks of leave."), ("", LONG), ("", CHINESE)], near=0.95)
    assert copies.rule(title, text) == rule


WORDS = st.lists(st.sampled_from([f"w{n}" for n in range(12)]), min_size=10, max_size=40)


@given(st.lists(WORDS, min_size=1, max_size=3), WORDS, st.integers(0, 39), st.floats(0.05, 1))
def test_a_near_copy_holds_so_many_shingles(
    positives: list[list[str]], words: list[str], kept: int, near: float
) -> None:
    text, *texts = (" ".join(each) for each in [[*positives[0][:kept], *words], *positives])
    shares = [
        len(shingles(text) & shingles(one)) / len(shingles(one)) for one in texts if len(shingles(one)) > 7
    ]
    expected = "near_copy" if any(share >= near for share in shares) else ""
    found = Copies([("", one) for one in texts], near=near).rule("", text)
    assert found == ("positive_copy" if text in texts else expected)


def test_near_copies_can_be_kept() -> None:
    copies = Copies([("", LONG)], near=0.0)
    assert copies.rule("", f"{LONG} and a footer") == ""
    assert copies.rule("", LONG.upper()) == "positive_copy"


TEXTS = st.one_of(
    st.sampled_from(["a b c", "A  b c.", "[SEP] x", "(SEP) x", LONG, f"{LONG} end", f"{LONG[:-30]} other"]),
    st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=30).map(" ".join),
)
CANDIDATES = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["", "T", "U"]), TEXTS, st.floats(-5, 5)),
    min_size=2,
    max_size=8,
    unique_by=lambda candidate: candidate[0],
)


def ranked(candidates: list[tuple[str, str, str, float]]) -> RankedGroup:
    scored = tuple(
        ScoredCandidate(Candidate(name, name, title, text, 1.0, n), None, "", logit, False, 0)
        for n, (name, title, text, logit) in enumerate(candidates, start=1)
    )
    return rank(QueryGroup(Query("q", "a query", 1, 0, ()), scored))


@given(
    CANDIDATES, st.sets(st.sampled_from("abcdefgh"), min_size=1, max_size=3), st.sampled_from([0.5, 0.95, 1])
)
@settings(deadline=None, max_examples=300)
def test_no_negative_says_what_a_positive_says(
    candidates: list[tuple[str, str, str, float]], positive_ids: set[str], near: float
) -> None:
    config = Mining(easy_negatives=3, near_copies=near)

    mined = mine(ranked(candidates), frozenset(positive_ids), config=config, label_source="clicks")

    labels = defaultdict(set)
    for query, passage, label in training_pairs(mined.negatives, tagged=False):
        labels[query, normalise_query(passage).casefold()].add(label)
    assert all(len(of_one) == 1 for of_one in labels.values())
    texts = {name: shingles(f"{title} {text}") for name, title, text, _ in candidates}
    for negative in mined.negatives:
        own = texts[negative.negative.scored.candidate.passage_id]
        for positive in positive_ids & texts.keys():
            theirs = texts[positive]
            assert len(theirs) < 8 or len(own & theirs) / len(theirs) < near


def test_copies_are_counted_by_their_own_rules() -> None:
    group = ranked(
        [("p", "", LONG, 1.0), ("a", "", LONG, 1.0), ("b", "", f"{LONG} x", 0.9), ("c", "", "no", 0.0)]
    )

    mined = mine(group, frozenset("p"), config=Mining(), label_source="clicks")

    assert [one.negative.scored.candidate.passage_id for one in mined.negatives] == ["c"]
    assert mined.rejected == {"is_positive": 1, "positive_copy": 1, "near_copy": 1}


def test_a_copy_of_a_positive_document_s_other_unit_is_no_negative_either() -> None:
    units = [
        Candidate("d", "d#0", "", "The answer.", 1.0, 1),
        Candidate("d", "d#1", "", "Its footer.", 1.0, 1),
        Candidate("e", "e#0", "", "The answer.", 1.0, 2),
        Candidate("e", "e#1", "", "Its footer.", 1.0, 2),
        Candidate("e", "e#2", "", "Something else.", 1.0, 2),
    ]
    scored = tuple(ScoredCandidate(unit, None, "", -float(n), False, 0) for n, unit in enumerate(units))
    group = rank(QueryGroup(Query("q", "a query", 1, 0, ()), scored))

    mined = mine(group, frozenset(["d#0"]), config=Mining(), label_source="clicks")

    assert [one.negative.scored.candidate.passage_id for one in mined.negatives] == ["e#2"]
