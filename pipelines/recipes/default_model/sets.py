"""The sets that the shipped model is trained on, and the groups and held-out candidates made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.evaluate.judged_sets import open_index
from pipelines.recipes.default_model import groups as training_groups
from pipelines.recipes.default_model import pseudo_queries
from pipelines.recipes.default_model.groups import LabelledSet, Question, SetPassage, TrainingGroup
from pipelines.recipes.default_model.measure import EvaluationSet, Judged
from pipelines.sources.local.bm25_index import LocalIndex
from rerank_core.text import fingerprint


class SetSpec(NamedTuple):
    """What is drawn from a set for training."""

    questions: int  # labelled questions, at most
    pseudo: int  # passages from which a pseudo-query is made
    same_title: bool = False  # see groups.sample_negatives
    positives: int = 2  # per question, at most
    draws: int = 1  # groups per positive, with different negatives


TRAIN = {
    "hotpotqa": SetSpec(610, 600, draws=2),
    "musique": SetSpec(188, 500, positives=4, draws=2),
    "nq": SetSpec(1500, 400),
    "squad": SetSpec(1800, 500),
    "policyqa": SetSpec(700, 600, same_title=True),
}

HELD_BACK = {"musique"}
"""Sets whose dev questions have no own candidates: train questions that have some are for measuring, not training."""
HELD_OUT, HELD_OUT_DEPTH = 40, 15  # held-out train questions per set, and candidates of each


def search(
    index: LocalIndex, labelled: LabelledSet, texts: Sequence[str], *, top_k: int
) -> list[list[SetPassage]]:
    """BM25's best passages of each text, best first."""
    return [[labelled.corpus[d.doc_id] for d in results] for results in index.search(texts, top_k=top_k)]


def groups_of(
    labelled: LabelledSet, questions: Sequence[Question], index: LocalIndex, *, spec: SetSpec, seed: int
) -> list[TrainingGroup]:
    """Groups of a set's labelled questions."""
    chosen = sorted(questions, key=lambda q: fingerprint(str(seed), q.query_id))[: spec.questions]
    ranked = search(index, labelled, [q.text for q in chosen], top_k=100)
    return [
        group._replace(group_id=f"{group.group_id}/{draw}")
        for question, results in zip(chosen, ranked, strict=True)
        for draw in range(spec.draws)
        for group in training_groups.build_groups(
            labelled.name,
            question,
            results,
            labelled.corpus,
            same_title=spec.same_title,
            max_positives=spec.positives,
            seed=seed + draw,
        )
    ]


def pseudo_groups_of(
    labelled: LabelledSet, index: LocalIndex, *, count: int, seed: int
) -> list[TrainingGroup]:
    """Groups of pseudo-queries, made from `count` passages of a set's corpus."""
    frequencies = pseudo_queries.document_frequencies(p.text for p in labelled.corpus.values())
    by_hash = sorted(labelled.corpus.values(), key=lambda p: fingerprint(str(seed), "pseudo", p.doc_id))
    drawn = (
        pseudo_queries.pseudo_query(p, frequencies, generator=training_groups.rng(seed, "pseudo", p.doc_id))
        for p in by_hash[:count]
    )
    queries = [query for query in drawn if query is not None]
    ranked = search(index, labelled, [query.query for query in queries], top_k=40)
    groups = []
    for query, results in zip(queries, ranked, strict=True):
        own = query.passage
        same = {p.doc_id for p in results if query.way == "title" and p.title == own.title}
        question = Question(own.doc_id, query.query, (), frozenset({own.doc_id}), ())
        groups += training_groups.build_groups(
            f"pseudo:{query.way}:{labelled.name}",
            question,
            [p for p in results if p.doc_id not in same - {own.doc_id}],
            labelled.corpus | {own.doc_id: own},
            seed=seed,
        )
    return groups


def evaluation_set(
    labelled: LabelledSet,
    questions: Sequence[Question],
    index: LocalIndex,
    *,
    depth: int,
    qrels: dict[str, dict[str, int]],
) -> EvaluationSet:
    """Questions with `depth` candidates: BM25's best, or the question's own in BM25's order.

    Judgements are those of `qrels`, or the question's positives if it has none.
    """
    judged = []
    for question in questions:
        if question.candidates:
            ranked = search(index, labelled, [question.text], top_k=1000)[0]
            rank = {p.doc_id: i for i, p in enumerate(ranked)}
            own = sorted(question.candidates, key=lambda d: (rank.get(d, len(rank)), d))
            candidates = [labelled.corpus[d] for d in own[:depth]]
        else:
            candidates = search(index, labelled, [question.text], top_k=depth)[0]
        grades = qrels.get(question.query_id) or dict.fromkeys(question.positives, 1)
        if candidates:
            judged.append(Judged(question.query_id, question.text, tuple(candidates), grades))
    return EvaluationSet(labelled.name, tuple(judged))


def within_titles(labelled: LabelledSet) -> LabelledSet:
    """Ask each question of one document: its candidates are all passages with one title, its positives among them.

    If questions with the same words were asked of several documents, the one with the lowest doc id is taken.
    """
    titles: dict[str, list[str]] = {}
    for passage in labelled.corpus.values():
        titles.setdefault(passage.title, []).append(passage.doc_id)
    by_positives = {}
    for question in training_groups.share_positives(labelled.questions):
        own = tuple(titles[labelled.corpus[min(question.positives)].title])
        by_positives[question.positives] = question._replace(
            candidates=own, positives=question.positives & frozenset(own)
        )
    return labelled._replace(questions=tuple(by_positives.values()))


def read_grades(path: Path) -> dict[str, dict[str, int]]:
    """Grades of a qrels file, query_id -> doc_id -> grade; negative ones count as 0."""
    grades: dict[str, dict[str, int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query_id, doc_id, grade = line.split("\t")
        grades.setdefault(query_id, {})[doc_id] = max(0, int(grade))
    return grades


def training_data(
    folder: Path, work: Path, *, without: set[str], quick: bool, seed: int
) -> tuple[list[TrainingGroup], list[EvaluationSet]]:
    """(training groups in order, held-out questions of each set's train split with their candidates)."""
    groups: list[TrainingGroup] = []
    held_out = []
    for name, spec in TRAIN.items():
        labelled = training_groups.read_set(folder / name, split="train")
        if spec.same_title:
            labelled = labelled._replace(questions=training_groups.share_positives(labelled.questions))
        index = open_index(folder / name, work / "index")
        if name in HELD_BACK:
            labelled = labelled._replace(questions=tuple(q for q in labelled.questions if not q.candidates))
        kept, out = training_groups.hold_out(labelled.questions, count=4 if quick else HELD_OUT, seed=seed)
        out = sorted(out, key=lambda q: fingerprint(q.query_id))[: 4 if quick else HELD_OUT]
        if spec.same_title:
            out = list(within_titles(labelled._replace(questions=tuple(out))).questions)
        held_out.append(evaluation_set(labelled, out, index, depth=HELD_OUT_DEPTH, qrels={}))
        if name in without:
            continue
        if quick:
            spec = spec._replace(questions=10, pseudo=10)
        groups += groups_of(labelled, kept, index, spec=spec, seed=seed)
        groups += pseudo_groups_of(labelled, index, count=spec.pseudo, seed=seed)
    return training_groups.mixed(groups, seed=seed), held_out
