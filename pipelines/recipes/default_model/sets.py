"""Which sets the shipped model is trained and measured on, and the groups and candidates made of them."""

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


class TrainingSpec(NamedTuple):
    """How a set takes part in training."""

    questions: int  # drawn at most
    pseudo: int  # passages of its corpus that are asked for a pseudo-query
    same_title: bool = False  # see data.sample_negatives
    positives: int = 2  # of a question, at most
    draws: int = 1  # groups a positive, each with negatives of its own


class EvaluationSpec(NamedTuple):
    """How a set is measured."""

    queries: int  # of the dev split, the first by hash; 0 is all
    depth: int  # candidates a query: its own, or BM25's best
    relevant: int = 1
    same_title: bool = False  # candidates are the passages of the document that is asked about


TRAIN = {
    "hotpotqa": TrainingSpec(610, 600, draws=2),
    "musique": TrainingSpec(188, 500, positives=4, draws=2),
    "nq": TrainingSpec(1500, 400),
    "squad": TrainingSpec(1800, 500),
    "policyqa": TrainingSpec(700, 600, same_title=True),
}
DEV = {
    "hotpotqa": EvaluationSpec(200, 10),
    "musique": EvaluationSpec(100, 50),
    "nq": EvaluationSpec(120, 30),
    "squad": EvaluationSpec(120, 30),
    "policyqa": EvaluationSpec(120, 30, same_title=True),
    "nfcorpus": EvaluationSpec(60, 100),
    "trec_dl19": EvaluationSpec(0, 100, relevant=2),
}
KEPT_APART = {"musique"}
"""Sets whose dev questions have no candidates of their own: the train questions that do are measured, not learned."""
HELD_OUT, HELD_OUT_DEPTH = 40, 15  # train questions a set for choosing, and candidates of each


def search(
    index: LocalIndex, labelled: LabelledSet, texts: Sequence[str], *, top_k: int
) -> list[list[SetPassage]]:
    """BM25's best passages of each text, best first."""
    return [[labelled.corpus[d.doc_id] for d in found] for found in index.search(texts, top_k=top_k)]


def groups_of(
    labelled: LabelledSet, questions: Sequence[Question], index: LocalIndex, *, spec: TrainingSpec, seed: int
) -> list[TrainingGroup]:
    """Groups of a set's labelled questions."""
    chosen = sorted(questions, key=lambda q: fingerprint(str(seed), q.query_id))[: spec.questions]
    ranked = search(index, labelled, [q.text for q in chosen], top_k=100)
    return [
        group._replace(group_id=f"{group.group_id}/{draw}")
        for question, found in zip(chosen, ranked, strict=True)
        for draw in range(spec.draws)
        for group in training_groups.build_groups(
            labelled.name,
            question,
            found,
            labelled.corpus,
            same_title=spec.same_title,
            max_positives=spec.positives,
            seed=seed + draw,
        )
    ]


def pseudo_groups_of(
    labelled: LabelledSet, index: LocalIndex, *, count: int, seed: int
) -> list[TrainingGroup]:
    """Groups of queries made from `count` passages of a set's corpus."""
    frequencies = pseudo_queries.document_frequencies(p.text for p in labelled.corpus.values())
    sample = sorted(labelled.corpus.values(), key=lambda p: fingerprint(str(seed), "pseudo", p.doc_id))[
        :count
    ]
    made = [
        pseudo_queries.pseudo_query(p, frequencies, generator=training_groups.rng(seed, "pseudo", p.doc_id))
        for p in sample
    ]
    queries = [m for m in made if m is not None]
    ranked = search(index, labelled, [m.query for m in queries], top_k=40)
    groups = []
    for query, found in zip(queries, ranked, strict=True):
        own = query.passage
        same = {p.doc_id for p in found if query.way == "title" and p.title == own.title}
        question = Question(own.doc_id, query.query, (), frozenset({own.doc_id}), ())
        groups += training_groups.build_groups(
            f"pseudo:{query.way}:{labelled.name}",
            question,
            [p for p in found if p.doc_id not in same - {own.doc_id}],
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
    relevant: int,
    qrels: dict[str, dict[str, int]],
) -> EvaluationSet:
    """Questions with their candidates: BM25's best, or their own in BM25's order.

    Judgements are those of `qrels`, or where it holds none the question's positives.
    """
    judged = []
    for question in questions:
        if question.candidates:
            ranked = search(index, labelled, [question.text], top_k=1000)[0]
            place = {p.doc_id: i for i, p in enumerate(ranked)}
            own = sorted(question.candidates, key=lambda d: (place.get(d, len(place)), d))
            found = [labelled.corpus[d] for d in own[:depth]]
        else:
            found = search(index, labelled, [question.text], top_k=depth)[0]
        grades = qrels.get(question.query_id) or dict.fromkeys(question.positives, 1)
        if found:
            judged.append(Judged(question.query_id, question.text, tuple(found), grades))
    return EvaluationSet(labelled.name, tuple(judged), relevant)


def within_titles(labelled: LabelledSet) -> LabelledSet:
    """Ask each question of one document: its candidates are all passages of that title, its positives theirs.

    Of all documents that a question of the same words was asked of, the one with the lowest doc id is taken.
    """
    titles: dict[str, list[str]] = {}
    for passage in labelled.corpus.values():
        titles.setdefault(passage.title, []).append(passage.doc_id)
    asked = {}
    for question in training_groups.share_positives(labelled.questions):
        own = tuple(titles[labelled.corpus[min(question.positives)].title])
        asked[question.positives] = question._replace(
            candidates=own, positives=question.positives & frozenset(own)
        )
    return labelled._replace(questions=tuple(asked.values()))


def read_grades(path: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query_id, doc_id, grade = line.split("\t")
        grades.setdefault(query_id, {})[doc_id] = max(0, int(grade))
    return grades


def dev_sets(folder: Path, work: Path, *, quick: bool) -> list[EvaluationSet]:
    """The sets of DEV that are there, each with its candidates."""
    sets = []
    for name, spec in DEV.items():
        labelled = training_groups.read_set(folder / name, split="dev")
        labelled = within_titles(labelled) if spec.same_title else labelled
        questions = sorted(labelled.questions, key=lambda q: fingerprint(name, q.query_id))
        limit = 4 if quick else spec.queries or len(questions)
        grades = {} if spec.same_title else read_grades(folder / name / "qrels" / "dev.tsv")
        index = open_index(folder / name, work / "index")
        sets.append(
            evaluation_set(
                labelled, questions[:limit], index, depth=spec.depth, relevant=spec.relevant, qrels=grades
            )
        )
    return sets


def training_data(
    folder: Path, work: Path, *, without: set[str], quick: bool, seed: int
) -> tuple[list[TrainingGroup], list[EvaluationSet]]:
    """(training groups in order, held-out slices of the train questions)."""
    groups: list[TrainingGroup] = []
    held = []
    for name, spec in TRAIN.items():
        labelled = training_groups.read_set(folder / name, split="train")
        if spec.same_title:
            labelled = labelled._replace(questions=training_groups.share_positives(labelled.questions))
        index = open_index(folder / name, work / "index")
        if name in KEPT_APART:
            labelled = labelled._replace(questions=tuple(q for q in labelled.questions if not q.candidates))
        kept, out = training_groups.hold_out(labelled.questions, count=4 if quick else HELD_OUT, seed=seed)
        out = sorted(out, key=lambda q: fingerprint(q.query_id))[: 4 if quick else HELD_OUT]
        if spec.same_title:
            out = list(within_titles(labelled._replace(questions=tuple(out))).questions)
        held.append(evaluation_set(labelled, out, index, depth=HELD_OUT_DEPTH, relevant=1, qrels={}))
        if name in without:
            continue
        if quick:
            spec = spec._replace(questions=10, pseudo=10)
        made = groups_of(labelled, kept, index, spec=spec, seed=seed)
        raw = pseudo_groups_of(labelled, index, count=spec.pseudo, seed=seed)
        groups += made + raw
    return training_groups.mix({"all": groups}, limits={}, seed=seed), held
