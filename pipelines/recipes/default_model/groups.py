"""Training groups from labelled sets: one query, its positive and hard negatives, as pure functions.

A set is a folder in BEIR's layout: corpus.jsonl {_id, title, text}, queries.jsonl {_id, text} with optional answers,
split and candidates, qrels/SPLIT.tsv. Everything random is drawn from a hash of the seed and the query, so the same
inputs give the same groups in any order.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rerank_core.config.night import Tagging
from rerank_core.features.names import lower_words
from rerank_core.features.render import Rendered, passage_text, render
from rerank_core.features.tagger import tag
from rerank_core.text import fingerprint, normalise_query
from schemas.tags import Tags

TAG_MODES = ("plain", "true", "shuffled")
TAG_SHARES = (0.4, 0.4, 0.2)
"""Shares of groups that are shown without tags, with true tags, and with shuffled tags.

A model that always sees true tags may rank by them alone, so a share of the tags in training must not help.
"""


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


class TrainingGroup(NamedTuple):
    """One query and its passages, the positive first."""

    group_id: str  # "squad/573733", the seed of everything random about it
    kind: str  # the set, or "pseudo:", the way the query was made, ":" and the set
    query: str
    passages: tuple[SetPassage, ...]
    bm25_ranks: tuple[int, ...]  # from 1; 0 if BM25 did not find the passage


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


def sample_negatives(
    pool: Sequence[SetPassage], *, count: int, hard: int, generator: random.Random, prefer_title: str = ""
) -> list[SetPassage]:
    """`count` of `pool`, best first: one from below the first `hard` if there is one, the others from within.

    With `prefer_title`, passages of that title are ranked first: where every document could answer the question, the
    hard negatives are the other passages of the document that is asked about.
    """
    if prefer_title:
        pool = sorted(pool, key=lambda p: p.title != prefer_title)  # stable: BM25's order within each
    near, far = list(pool[:hard]), list(pool[hard:])
    easy = generator.sample(far, 1) if far and count > 1 else []
    chosen = {p.doc_id for p in (*generator.sample(near, min(count - len(easy), len(near))), *easy)}
    return [p for p in pool if p.doc_id in chosen]


def build_groups(
    name: str,
    question: Question,
    ranked: Sequence[SetPassage],
    corpus: Mapping[str, SetPassage],
    *,
    negatives: int = 6,
    hard: int = 30,
    max_positives: int = 2,
    same_title: bool = False,
    seed: int = 7,
) -> list[TrainingGroup]:
    """The training groups of one question, one per positive; [] if no negative is left.

    Args:
        name: the set's name.
        question: its own candidates, if it has any, replace `ranked`.
        ranked: BM25's results, best first.
        corpus: doc_id -> passage.
        negatives: number per group, at most.
        hard: lowest rank in BM25's list of a hard negative.
        max_positives: number of groups per question, at most.
        same_title: prefer negatives with the positive's title, see `sample_negatives`.
        seed: of the draw.
    """
    rank_of = {p.doc_id: rank for rank, p in enumerate(ranked, start=1)}
    pool = [corpus[d] for d in question.candidates] if question.candidates else list(ranked)
    pool = eligible_negatives(question, pool)
    # A question whose positives were merged from many still trains on few of them.
    positives = sorted(question.positives, key=lambda d: fingerprint(str(seed), question.query_id, d))
    groups = []
    for doc_id in [d for d in positives if d in corpus][:max_positives]:
        positive = corpus[doc_id]
        chosen = sample_negatives(
            pool,
            count=negatives,
            hard=hard,
            generator=rng(seed, name, question.query_id, doc_id),
            prefer_title=positive.title if same_title else "",
        )
        if chosen:
            passages = (positive, *chosen)
            ranks = tuple(rank_of.get(p.doc_id, 0) for p in passages)
            groups.append(
                TrainingGroup(f"{name}/{question.query_id}/{doc_id}", name, question.text, passages, ranks)
            )
    return groups


def tag_mode(group_id: str, *, epoch: int, seed: int) -> str:
    """How a group's tags are shown in an epoch: one of TAG_MODES, drawn by TAG_SHARES."""
    return rng(seed, "tags", epoch, group_id).choices(TAG_MODES, TAG_SHARES)[0]


def shown_tags(
    query: str, passages: Sequence[SetPassage], *, mode: str, key: str, config: Tagging | None = None
) -> list[Tags | None]:
    """The tags to show with each passage; "shuffled" permutes the true ones, seeded by `key`.

    Raises:
        ValueError: no such mode.
    """
    if mode not in TAG_MODES:
        raise ValueError(f"no tag mode {mode!r}; choose one of {', '.join(TAG_MODES)}")
    if mode == "plain":
        return [None] * len(passages)
    tags: list[Tags | None] = list(
        tag(query, [(p.title, p.text) for p in passages], config=config or Tagging())
    )
    if mode == "shuffled":
        rng("shuffle", key).shuffle(tags)
    return tags


def rendered(query: str, passages: Sequence[SetPassage], tags: Sequence[Tags | None]) -> list[Rendered]:
    """The model's inputs, one per passage."""
    return [render(query, passage_text(p.title, p.text), t) for p, t in zip(passages, tags, strict=True)]


def mixed(groups: Sequence[TrainingGroup], *, seed: int) -> list[TrainingGroup]:
    """The groups ordered by hash."""
    return sorted(groups, key=lambda group: fingerprint(str(seed), "mix", group.group_id))


def batches(
    groups: Sequence[TrainingGroup],
    *,
    size: int,
    epoch: int,
    seed: int,
    length: Callable[[TrainingGroup], int],
) -> list[list[TrainingGroup]]:
    """One epoch in batches of `size` groups of similar `length`, shuffled differently in each epoch.

    Groups are sorted within runs of 32 batches only: that avoids most of the padding, and keeps batches mixed.
    """
    generator = rng(seed, "epoch", epoch)
    order = list(groups)
    generator.shuffle(order)
    result = []
    for start in range(0, len(order), size * 32):
        run = sorted(order[start : start + size * 32], key=length)
        result += [run[i : i + size] for i in range(0, len(run), size)]
    generator.shuffle(result)
    return result


def _jsonl(path: Path) -> Iterable[dict]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
