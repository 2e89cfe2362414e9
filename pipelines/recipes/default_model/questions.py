"""Labelled questions of sets in BEIR's layout, and what may be a negative of each, as pure functions.

A set is a folder with corpus.jsonl {_id, title, text}, queries.jsonl {_id, text} with optional answers, split and
candidates, qrels/SPLIT.tsv. Everything random is drawn from a hash of the seed and the query, so the same inputs give
the same questions in any order.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rerank_core.features.names import lower_words
from rerank_core.text import fingerprint, normalise_query


class SetPassage(NamedTuple):
    """One document of a set's corpus."""

    doc_id: str
    title: str
    text: str


class Question(NamedTuple):
    """One labelled query of a set."""

    query_id: str
    text: str
    answers: tuple[str, ...]
    positives: frozenset[str]  # doc ids judged relevant, never empty
    candidates: tuple[str, ...]  # doc ids of the question's own list; () if the set has none


class LabelledSet(NamedTuple):
    """A set's corpus, and the questions of one split."""

    name: str
    corpus: dict[str, SetPassage]
    questions: tuple[Question, ...]


def read_set(folder: str | Path, *, split: str, relevant: int = 1) -> LabelledSet:
    """Read a set's corpus and the questions of `split` that have a passage judged `relevant` or higher.

    Questions without the field `split`, as in BEIR's own files, belong to the splits whose qrels judge them.

    Raises:
        FileNotFoundError: a file of the layout is missing.
        KeyError: a question's own candidate is not in the corpus.
    """
    folder = Path(folder)
    corpus = {
        row["_id"]: SetPassage(row["_id"], row.get("title", ""), row["text"])
        for row in _jsonl(folder / "corpus.jsonl")
    }
    positives: dict[str, set[str]] = {}
    with (folder / "qrels" / f"{split}.tsv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            if int(row["score"]) >= relevant:
                positives.setdefault(row["query-id"], set()).add(row["corpus-id"])
    questions = tuple(
        Question(
            row["_id"],
            row["text"],
            tuple(row.get("answers", ())),
            frozenset(positives[row["_id"]]),
            tuple(row.get("candidates", ())),
        )
        for row in _jsonl(folder / "queries.jsonl")
        if row.get("split", split) == split and row["_id"] in positives
    )
    for question in questions:
        for doc_id in question.candidates:
            if doc_id not in corpus:
                raise KeyError(
                    f"{folder}: query {question.query_id} names {doc_id}, which corpus.jsonl lacks"
                )
    return LabelledSet(folder.name, corpus, questions)


def share_positives(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Give every question the positives of all questions with the same words.

    Sets about one kind of document ask the same question of each document and label one passage at a time.
    """
    merged: dict[str, frozenset[str]] = {}
    for question in questions:
        key = normalise_query(question.text).casefold()
        merged[key] = merged.get(key, frozenset()) | question.positives
    return tuple(q._replace(positives=merged[normalise_query(q.text).casefold()]) for q in questions)


def hold_out(
    questions: Sequence[Question], *, count: int, seed: int
) -> tuple[list[Question], list[Question]]:
    """(kept for training, held out); the questions with the lowest hashes, at most half, are held out.

    Questions with the same words stay together, so that nothing held out was trained on.
    """

    def key(question: Question) -> str:
        return fingerprint(str(seed), "hold_out", normalise_query(question.text).casefold())

    count = min(count, len(questions) // 2)
    if count == 0:
        return list(questions), []
    limit = sorted(key(q) for q in questions)[count - 1]
    return [q for q in questions if key(q) > limit], [q for q in questions if key(q) <= limit]


def rng(*parts: object) -> random.Random:
    """A random generator seeded by `parts`."""
    return random.Random(fingerprint(*map(str, parts)))


def holds_answer(text: str, answers: Iterable[str]) -> bool:
    """Whether an answer of three characters or more occurs in `text` as whole words, ignoring case and punctuation.

    Shorter ones, yes and no occur everywhere.
    """
    padded = f" {lower_words(text)} "
    known = (lower_words(answer) for answer in answers)
    return any(len(a) >= 3 and a != "yes" and f" {a} " in padded for a in known)


def eligible_negatives(question: Question, ranked: Sequence[SetPassage]) -> list[SetPassage]:
    """The passages of `ranked` that are no positives and contain neither an answer nor a positive's text."""
    texts = {p.text for p in ranked if p.doc_id in question.positives}
    return [
        p
        for p in ranked
        if p.doc_id not in question.positives
        and p.text not in texts
        and not holds_answer(p.text, question.answers)
    ]


def _jsonl(path: Path) -> Iterable[dict]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
