"""The dozen hard queries are as their README says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from pipelines.recipes.default_model.questions import Question, SetPassage, read_set

DOZEN = read_set(Path(__file__).parents[2] / "benchmarks" / "data" / "hard_dozen", split="dev")


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


@pytest.mark.parametrize("question", DOZEN.questions, ids=lambda question: question.query_id)
def test_every_wrong_passage_shares_more_words_than_the_answer(question: Question) -> None:
    def shared(doc_id: str) -> int:
        passage: SetPassage = DOZEN.corpus[doc_id]
        return len(words(question.text) & words(passage.text))

    (answer,) = question.positives
    assert len(question.candidates) == 4
    assert all(shared(doc_id) > shared(answer) for doc_id in question.candidates if doc_id != answer)


def test_answers_stand_at_every_place() -> None:
    places = Counter(min(q.positives)[-1] for q in DOZEN.questions)
    assert len(DOZEN.questions) == 12
    assert len(places) == 4
