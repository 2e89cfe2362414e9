"""The sets of the default model's recipe."""

from __future__ import annotations

from pathlib import Path

from pipelines.recipes.default_model.questions import LabelledSet, Question, SetPassage
from pipelines.recipes.default_model.sets import (
    SetSpec,
    evaluation_set,
    items_of,
    made_items_of,
    open_index,
    read_grades,
    within_titles,
)
from tests.support.tiny import CORPUS, write_lines

PAGES = {name: SetPassage(name, name[0], f"text {name}") for name in ("a1", "a2", "b1")}


def question(name: str, text: str, *positives: str) -> Question:
    return Question(name, text, (), frozenset(positives), ())


def test_a_question_is_asked_of_the_document_with_the_lowest_id() -> None:
    asked = (question("1", "Who?", "b1"), question("2", "who", "a2"))
    (only,) = within_titles(LabelledSet("s", PAGES, asked)).questions
    assert only.candidates == ("a1", "a2")
    assert only.positives == {"a2"}


def test_grades_below_zero_count_as_zero(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t2\nq\tb\t-1\n")
    assert read_grades(tmp_path / "dev.tsv") == {"q": {"a": 2, "b": 0}}


def test_items_and_candidates_come_from_bm25(tmp_path: Path) -> None:
    write_lines(tmp_path / "set" / "corpus.jsonl", CORPUS)
    index = open_index(tmp_path / "set", tmp_path / "index")
    passages = {row["_id"]: SetPassage(row["_id"], row["title"], row["text"]) for row in CORPUS}
    asked = question("1", "dune, published in 1965", "dune")
    labelled = LabelledSet("set", passages, (asked,))

    (item,) = items_of(labelled, [asked], index, spec=SetSpec(), seed=7)
    assert item.positives == (passages["dune"],)
    assert item.negatives
    assert not set(item.positives) & set(item.negatives)
    for made in made_items_of(labelled, index, count=50, seed=7):
        assert made.made
        assert made.positives[0] in passages.values()

    judged = evaluation_set(labelled, [asked], index, depth=2, qrels={})
    assert judged.queries[0].candidates[0] == passages["dune"]
    assert len(judged.queries[0].candidates) <= 2
    assert judged.queries[0].qrels == {"dune": 1}
