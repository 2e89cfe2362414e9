"""Splitting questions: the example and the counterexample of each rule are its tests."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.candidates.decomposition import RULES, SplitRule, decompose
from rerank_core.candidates.question_words import STOP_WORDS
from rerank_core.text import normalise_query

_VOCABULARY = (
    "who which that whose where and or of the a in both are is was when first older common share between either "
    'how many Ada Lane Rill Dusk film author born city , : ? "Now or Never" "'
).split(" ")
_QUESTIONS = st.lists(st.sampled_from(_VOCABULARY), max_size=25).map(" ".join)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_splits_its_own_example(rule: SplitRule) -> None:
    assert decompose(rule.example) == rule.parts


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_other_rule_would_have_split_the_example(rule: SplitRule) -> None:
    for other in RULES:
        if other is not rule:
            assert not _decompose_by(other, rule.example)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_rule_splits_the_counterexample(rule: SplitRule) -> None:
    assert decompose(rule.counterexample) == ()


def test_counterexamples_in_lower_case() -> None:
    assert decompose("did pride and prejudice win both prizes?") == ()
    assert decompose("which singer wrote truth or dare?") == ()
    # Without its capitals a title is a clause like any other; as a part it stays whole.
    assert decompose("who sang the days that changed ostra?") == ("the days that changed ostra",)


def _decompose_by(rule: SplitRule, query: str) -> tuple[str, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rerank_core.candidates.decomposition.RULES", (rule,))
        return decompose(query)


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("Who was born first, Ada Lane or Tom Rill?", ("Ada Lane", "Tom Rill")),
        ("who was born first ada lane or tom rill", ("ada lane", "tom rill")),
        ("Who was born first of Ada J. Lane and Tom Rill", ("Ada J. Lane", "Tom Rill")),
        ("Between Ada Lane and Tom Rill, who is older?", ("Ada Lane", "Tom Rill")),
        ("Ada Lane or Tom Rill, which is older?", ("Ada Lane", "Tom Rill")),
        ("Which plant is taller, the oak or the birch?", ("the oak", "the birch")),
        (
            "Which dog herds: either the Rill Hound, or the Brill Terrier?",
            ("the Rill Hound", "the Brill Terrier"),
        ),
        ("Is Rill University or Lane University public?", ("Rill University", "Lane University")),
        ("Which opera has more acts, Dusk or Dawn by Rill?", ("Dusk", "Dawn by Rill")),
        ('Which came out earlier, "Now or Never" or "Dusk"?', ('"Now or Never"', '"Dusk"')),
        ("Which film is older, Truth or Dare or Dusk?", ("Truth or Dare", "Dusk")),
        ("Which band is older, The Who or Them?", ("The Who", "Them")),
        (
            "Who has won more prizes, the author of Dusk or the author of Dawn?",
            ("the author of Dusk", "the author of Dawn"),
        ),
        ("Are both Ada Lane and Tom Rill poets?", ("Ada Lane", "Tom Rill")),
        ("Are Ada Lane and Tom Rill poets?", ("Ada Lane", "Tom Rill")),
        ("are ada lane and tom rill both poets", ("ada lane", "tom rill")),
        ("What do Ada Lane and Tom Rill have in common?", ("Ada Lane", "Tom Rill")),
        ("Were Lord of the Hills and Dusk both filmed in Ostra?", ("Lord of the Hills", "Dusk")),
        ("Are Dusk and Dawn and Noon and Night both novels?", ("Dusk and Dawn", "Noon and Night")),
        ("Who is the spouse of the performer of Blue Hour?", ("the performer of Blue Hour",)),
        ("who is the spouse of the performer of blue hour?", ("the performer of blue hour",)),
        (
            "What city is the university that Ada Lane attended located in?",
            ("the university that Ada Lane attended located in",),
        ),
        ("In which county was the birthplace of the author of Dusk?", ("the author of Dusk",)),
        ("What is the address of the prison at which Tom Rill died?", ("the prison at which Tom Rill died",)),
        (
            "When did the Ostra Tram open in the city where the actor who played Captain Brill was born?",
            ("the actor who played Captain Brill was born", "When did the Ostra Tram open in"),
        ),
        ("who is the spouse of the performer of thriller", ("the performer of thriller",)),
        ("Ada Lane was born in what town?", ("Ada Lane was born",)),
        ("Ada Lane wrote for a paper that is based in what town?", ("Ada Lane wrote for",)),
    ],
)
def test_parts(query: str, parts: tuple[str, ...]) -> None:
    assert decompose(query) == parts


@pytest.mark.parametrize(
    "query",
    [
        "Who wrote Pride and Prejudice?",
        "Was Pride and Prejudice filmed in Bath?",
        "Are Trinidad and Tobago islands?",
        "Are Trinidad and Tobago and Jamaica both islands?",  # where the sides meet, no one can say
        "Who won the Battle of the Rills?",
        "Who sang Lord of the Hills?",
        "Who plays bass in The Who?",
        'Who directed "The Man Who Was Late"?',
        "Is Ada Lane a poet or a painter?",
        "Which school trains singers, actors or dancers in Ostra?",
        "What is the capital of the largest state?",
        "When did it open?",
        "Which river of Trinidad and Tobago floods?",
        "What is art and who made it?",
        "Who in Ostra knows when and where trams stop?",
        "who knows when and where the old tram stopped?",
        "Who trains here, the singers or the dancers?",
        "Which came first, the or Dusk?",
        "Are both the and Ada Lane poets?",
        "Who is king of the Ostra Rills?",
        *("", "?", "the", "who or what", "and", "of the", '"'),
    ],
)
def test_not_split(query: str) -> None:
    assert decompose(query) == ()


def test_max_parts_keeps_the_part_to_be_answered_first() -> None:
    query = "Who wrote the Ostra Anthem of the country where the school that Ada Lane left is?"

    assert len(decompose(query)) > 1
    assert decompose(query, max_parts=1) == decompose(query)[:1] == ("the school that Ada Lane left is",)
    with pytest.raises(ValueError, match="max_parts is 0; it must be at least 1"):
        decompose(query, max_parts=0)


def test_whatever_a_rule_gives_useless_parts_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [(0, 4), (1, 2), (0, 1), (3, 4), (2, 2), (1, 2)]
    rule = SplitRule("all", lambda question: spans, example="", parts=(), counterexample="")
    monkeypatch.setattr("rerank_core.candidates.decomposition.RULES", (rule,))

    assert decompose("Who Rill sang rill?") == ("Rill",)


@given(_QUESTIONS | st.text(), st.integers(1, 5))
def test_parts_are_useful_stretches_of_the_query(query: str, max_parts: int) -> None:
    whole, parts = normalise_query(query), decompose(query, max_parts=max_parts)

    assert parts == decompose(query, max_parts=max_parts) == decompose(f" {whole} ?", max_parts=max_parts)
    assert len(parts) <= max_parts
    assert len({part.casefold() for part in parts}) == len(parts)
    for part in parts:
        assert part in whole
        assert part.strip()
        assert part.casefold() != whole.casefold()
        assert part.casefold() not in STOP_WORDS


@pytest.mark.parametrize(
    "unit",
    ["the ", "or ", "that ", "A and b ", '"', "“", ", ", "of the ", "who A , ", "first ", "are A b and "],
)
def test_time_grows_with_the_length_alone(unit: str) -> None:
    query = f"Are {unit * 20_000} A and B both, or C"
    start = time.perf_counter()
    decompose(query)

    assert time.perf_counter() - start < 5  # hundreds of seconds where it grows with the square
