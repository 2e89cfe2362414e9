"""Labelled questions, and what may be a negative of each."""

import json

import pytest

from pipelines.recipes.default_model.questions import (
    Question,
    eligible_negatives,
    hold_out,
    holds_answer,
    read_set,
    share_positives,
)
from tests.support.rivers import ALPS, CORPUS, DANUBE, ELBE, RHINE, SEINE

WHERE = Question("q1", "Where does the Rhine rise?", ("Swiss Alps",), frozenset({"rhine"}), ())


def question(name: str, text: str = "", positives: tuple[str, ...] = ("rhine",)) -> Question:
    return Question(name, text or name, (), frozenset(positives), ())


class TestReadSet:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "rivers"
        (folder / "qrels").mkdir(parents=True)
        rows = [{"_id": p.doc_id, "title": p.title, "text": p.text} for p in CORPUS.values()]
        (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
        queries = [
            {
                "_id": "q1",
                "text": "Where does it rise?",
                "answers": ["Alps"],
                "split": "train",
                "candidates": ["elbe"],
            },
            {"_id": "q2", "text": "Held for dev", "answers": [], "split": "dev"},
            {"_id": "q3", "text": "Nobody judged", "answers": [], "split": "train"},
        ]
        (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
        head = "query-id\tcorpus-id\tscore\n"
        (folder / "qrels" / "train.tsv").write_text(head + "q1\trhine\t2\nq1\telbe\t0\nq2\tseine\t1\n")
        return folder

    def test_takes_judged_queries_of_the_split_only(self, folder):
        found = read_set(folder, split="train")
        assert found.questions == (
            Question("q1", "Where does it rise?", ("Alps",), frozenset({"rhine"}), ("elbe",)),
        )
        assert found.corpus["seine"] == SEINE
        assert found.name == "rivers"

    def test_without_a_split_the_judged_queries_are_taken(self, folder):
        queries = [{"_id": "q1", "text": "Where does it rise?"}, {"_id": "q9", "text": "Nobody judged"}]
        (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
        (only,) = read_set(folder, split="train").questions
        assert only == Question("q1", "Where does it rise?", (), frozenset({"rhine"}), ())

    def test_relevant_is_the_lowest_grade_that_counts(self, folder):
        assert read_set(folder, split="train", relevant=3).questions == ()

    def test_names_a_candidate_that_the_corpus_lacks(self, folder):
        (folder / "corpus.jsonl").write_text(json.dumps({"_id": "rhine", "text": "t"}))
        with pytest.raises(KeyError, match="query q1 names elbe"):
            read_set(folder, split="train")


class TestHoldOut:
    def test_parts_do_not_overlap_and_repeat(self):
        questions = [question(f"q{i}") for i in range(20)]
        kept, out = hold_out(questions, count=5, seed=7)
        assert len(out) == 5
        assert sorted(kept + out) == sorted(questions)
        assert hold_out(questions[::-1], count=5, seed=7)[1] == out[::-1]

    def test_questions_of_the_same_words_stay_together(self):
        questions = [
            question(f"q{i}", text) for i, text in enumerate(["Who?", "who", "Where", "When", "WHO ?"])
        ]
        kept, out = hold_out(questions, count=1, seed=1)
        assert not {q.text.strip(" ?").lower() for q in kept} & {q.text.strip(" ?").lower() for q in out}

    def test_never_takes_more_than_half(self):
        assert len(hold_out([question(f"q{i}") for i in range(4)], count=100, seed=7)[1]) == 2

    def test_nothing_from_nothing(self):
        assert hold_out([], count=5, seed=7) == ([], [])


def test_share_positives_joins_spellings_of_one_question():
    asked = [
        question("a", "What is kept?", ("rhine",)),
        question("b", "what is kept", ("elbe",)),
        question("c"),
    ]
    a, b, c = share_positives(asked)
    assert a.positives == b.positives == {"rhine", "elbe"}
    assert c.positives == {"rhine"}


@pytest.mark.parametrize(
    ("text", "answer", "holds"),
    [
        ("It rises in the Swiss Alps.", "swiss alps", True),
        ("The alphabet", "Alpha", False),  # whole words
        ("Yes, it does", "yes", False),  # tells nothing
        ("Chapter 7 of 9", "7", False),  # too short
        ("In 1887, he", "1887", True),
        ("Anything", "...", False),
    ],
)
def test_holds_answer(text, answer, holds):
    assert holds_answer(text, [answer]) is holds


class TestNegatives:
    def test_positives_answers_and_twins_are_no_negatives(self):
        twin = RHINE._replace(doc_id="twin")
        assert eligible_negatives(WHERE, [RHINE, twin, ALPS, DANUBE, ELBE]) == [DANUBE, ELBE]
