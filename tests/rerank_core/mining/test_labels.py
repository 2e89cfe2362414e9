"""Labels: what makes a candidate a positive, and of which unit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerank_core.config.labels import Labels
from rerank_core.errors import ConfigError
from rerank_core.mining.labels import (
    NO_JUDGEMENTS,
    Judgements,
    doubtful,
    load_judgements,
    positives,
    usable_answers,
)
from rerank_core.ranking.order import rank
from rerank_core.text import query_id
from schemas.records import Candidate, Query, QueryGroup, RankedGroup, ScoredCandidate


def group(
    *units: tuple[str, float], clicks: tuple[tuple[str, int], ...] = (), text: str = "text"
) -> RankedGroup:
    """Units given as (passage_id, logit), all of one text."""
    candidates = tuple(
        ScoredCandidate(
            Candidate(passage_id.split("#")[0], passage_id, "", text, 1.0, n), None, "f", logit, False, 0
        )
        for n, (passage_id, logit) in enumerate(units, start=1)
    )
    return rank(QueryGroup(Query("q", "a query", 1, 0, clicks), candidates))


def holding(title: str, text: str) -> RankedGroup:
    scored = ScoredCandidate(Candidate("d", "d", title, text, 1.0, 1), None, "f", 0.0, False, 0)
    return rank(QueryGroup(Query("q", "a query", 1, 0, ()), (scored,)))


def test_clicked_documents_are_positives_from_min_clicks_on() -> None:
    clicked = group(("a", 1), ("b", 2), ("c", 3), clicks=(("a", 1), ("b", 3), ("not found", 9)))

    assert positives(clicked, config=Labels(), judgements=NO_JUDGEMENTS) == {"a", "b"}
    assert positives(clicked, config=Labels(min_clicks=2), judgements=NO_JUDGEMENTS) == {"b"}


def test_what_users_may_have_found_relevant_is_no_negative() -> None:
    ranked = group(("a#0", 1), ("a#1", 2), ("b", 3), ("c", 4))
    seen = ranked._replace(
        query=ranked.query._replace(attraction=(("a", 0.21), ("b", 0.2), ("not found", 0.9)))
    )

    attractive = {"a#0": "attractive", "a#1": "attractive"}
    assert doubtful(seen, config=Labels(debias=True)) == attractive
    assert doubtful(seen, config=Labels(debias=True, shown_negatives_only=True)) == attractive | {
        "c": "rarely_shown"
    }
    assert doubtful(seen, config=Labels(debias=True, max_negative_attraction=1.0)) == {}
    assert doubtful(seen, config=Labels()) == {}
    assert doubtful(seen, config=Labels(source="qrels", debias=True)) == {}


def test_documents_judged_above_0_are_positives() -> None:
    config = Labels(source="qrels")
    judgements = Judgements({"q": {"a": 2, "b": 0, "c": -1, "z": 1}, "other": {"b": 1}}, {})

    assert positives(group(("a", 1), ("b", 2), ("c", 3)), config=config, judgements=judgements) == {"a"}
    assert positives(group(("a", 1)), config=config, judgements=NO_JUDGEMENTS) == frozenset()


@pytest.mark.parametrize("source", ["clicks", "qrels"])
def test_of_a_documents_units_the_best_is_the_positive(source: str) -> None:
    units = group(("a#0", 1), ("a#1", 3), ("a#2", 2), ("b#0", 9), clicks=(("a", 1),))
    config = Labels(source=source)  # type: ignore[arg-type]

    assert positives(units, config=config, judgements=Judgements({"q": {"a": 1}}, {})) == {"a#1"}


@pytest.mark.parametrize(
    ("answer", "title", "text", "expected"),
    [
        ("G. Stanley Hall", "", "It was led by G. Stanley Hall, of Clark.", True),
        ("Stanley Hall", "", "the STANLEY-HALL lecture", True),
        ("Hall", "", "the hallway", False),
        ("Stanley Hall", "Stanley", "Hall is his name", True),
        ("Tulsa", "Tulsa", "A city.", True),
        ("U.S.", "", "in the U.S. Army", True),
        ("café", "", "the cafe\u0301 opened", True),
        ("1,200", "", "some 1,200 people", True),
        ("1,200", "", "some 1200 people", False),
        ("Hall Stanley", "", "Stanley Hall", False),
    ],
)
def test_a_unit_that_holds_an_answer_as_whole_words_is_positive(
    answer: str, title: str, text: str, expected: bool
) -> None:
    judgements = Judgements({}, {"q": usable_answers([answer])})

    found = positives(holding(title, text), config=Labels(source="answers"), judgements=judgements)

    assert found == ({"d"} if expected else frozenset())


def test_every_unit_with_the_answer_is_positive_and_none_without_answers() -> None:
    units = group(("a#0", 1), ("a#1", 3), text="by Ann")
    config = Labels(source="answers")

    assert positives(units, config=config, judgements=Judgements({}, {"q": ("ann",)})) == {"a#0", "a#1"}
    assert positives(units, config=config, judgements=NO_JUDGEMENTS) == frozenset()


def test_answers_that_would_match_anything_are_left_out() -> None:
    answers = ["Yes", "no.", "7", "", "?!", "of the", "Ann", "ANN!", "42", "The Who"]

    assert usable_answers(answers) == ("ann", "42", "the who")


@pytest.mark.parametrize(
    "answer", ["Ｄｕｎｅ — “the”\tcafe\u0301!", "du\u00adne the CAFÉ", "dune the ca\u200dfé"]
)
def test_answers_fold_spelling_not_meaning(answer: str) -> None:
    assert usable_answers([answer]) == ("dune the café",)


def test_judgements_are_loaded_once_for_the_source(tmp_path: Path) -> None:
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    rows = [
        {"_id": "1", "text": "Who?", "answers": ["Ann", "yes"]},
        {"_id": "2", "text": "who", "answers": ["Bob", "ann"]},
        {"_id": "3", "text": "is it", "answers": ["no"]},
    ]
    queries.write_text("\n".join(map(json.dumps, rows)))
    qrels.write_text("query-id\tcorpus-id\tscore\n1\td1\t1\n2\td2\t1\n")
    paths = {"queries": str(queries), "qrels": str(qrels)}

    assert load_judgements(Labels(source="clicks")) == NO_JUDGEMENTS
    assert load_judgements(Labels(source="qrels", **paths)).qrels == {query_id("who"): {"d1": 1, "d2": 1}}
    assert load_judgements(Labels(source="answers", **paths)).answers == {query_id("who"): ("ann", "bob")}


def test_what_is_missing_is_said_before_the_night_starts(tmp_path: Path) -> None:
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text('{"_id": "1", "text": "is it", "answers": ["no"]}')
    qrels.write_text("other\td1\t1\n")

    with pytest.raises(ConfigError, match=r"needs labels\.queries"):
        load_judgements(Labels(source="answers"))
    with pytest.raises(ConfigError, match=r"needs labels\.qrels"):
        load_judgements(Labels(source="qrels", queries=str(queries)))
    with pytest.raises(ConfigError, match=r"no query of .* has a usable answer"):
        load_judgements(Labels(source="answers", queries=str(queries)))
    with pytest.raises(ConfigError, match=r"judges no query of"):
        load_judgements(Labels(source="qrels", queries=str(queries), qrels=str(qrels)))
