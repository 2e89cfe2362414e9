"""The sets that the shipped model is trained on, and the items and held-out candidates made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.evaluate.judged_sets import open_index
from pipelines.recipes.default_model import items, pseudo_queries, questions
from pipelines.recipes.default_model.items import Item
from pipelines.recipes.default_model.measure import EvaluationSet, Judged
from pipelines.recipes.default_model.questions import LabelledSet, Question, SetPassage, rng
from pipelines.sources.local.bm25_index import LocalIndex
from rerank_core.text import fingerprint


class SetSpec(NamedTuple):
    """What is drawn from a set for training."""

    questions: int = 6000  # labelled questions, at most
    made_from: int = 4000  # passages from which queries are made, at most
    same_title: bool = False  # see items.item_of


TRAIN = {
    "hotpotqa": SetSpec(),
    "musique": SetSpec(),
    "nq": SetSpec(),
    "squad": SetSpec(),
    "policyqa": SetSpec(same_title=True),
}
DRAWS = 2  # tries to make a query from a passage

HELD_BACK = {"musique"}
"""Sets whose dev questions have no own candidates: train questions that have some are for measuring, not training."""
HELD_OUT, HELD_OUT_DEPTH = 60, 20  # held-out train questions per set, and candidates of each


def search(
    index: LocalIndex, labelled: LabelledSet, texts: Sequence[str], *, top_k: int
) -> list[list[SetPassage]]:
    """BM25's best passages of each text, best first."""
    return [[labelled.corpus[d.doc_id] for d in results] for results in index.search(texts, top_k=top_k)]


def items_of(
    labelled: LabelledSet, asked: Sequence[Question], index: LocalIndex, *, spec: SetSpec, seed: int
) -> list[Item]:
    """The items of a set's labelled questions."""
    chosen = sorted(asked, key=lambda q: fingerprint(str(seed), q.query_id))[: spec.questions]
    ranked = search(index, labelled, [q.text for q in chosen], top_k=items.DEPTH)
    titles: dict[str, list[SetPassage]] = {}
    if spec.same_title:
        for passage in labelled.corpus.values():
            titles.setdefault(passage.title, []).append(passage)
    found = (
        items.item_of(
            labelled.name,
            question,
            results,
            labelled.corpus,
            same_title=_with_its_title(question, labelled, titles),
            seed=seed,
        )
        for question, results in zip(chosen, ranked, strict=True)
    )
    return [item for item in found if item]


def _with_its_title(
    question: Question, labelled: LabelledSet, titles: Mapping[str, Sequence[SetPassage]]
) -> Sequence[SetPassage]:
    positive = labelled.corpus.get(min(question.positives))
    return titles.get(positive.title, ()) if positive else ()


def made_items_of(labelled: LabelledSet, index: LocalIndex, *, count: int, seed: int) -> list[Item]:
    """The items of queries that are made from `count` passages of a set's corpus."""
    frequencies = pseudo_queries.document_frequencies(p.text for p in labelled.corpus.values())
    by_hash = sorted(labelled.corpus.values(), key=lambda p: fingerprint(str(seed), "made", p.doc_id))
    tries = (
        pseudo_queries.pseudo_query(p, frequencies, generator=rng(seed, "made", p.doc_id, draw))
        for p in by_hash[:count]
        for draw in range(DRAWS)
    )
    made = list({found.query: found for found in tries if found is not None}.values())
    ranked = search(index, labelled, [found.query for found in made], top_k=items.DEPTH)
    kept = (
        items.made_item(
            labelled.name,
            found.query,
            # The whole passage: a query may be a sentence of it, whose absence would give the positive away.
            labelled.corpus[found.passage.doc_id],
            [p for p in results if found.way != "title" or p.title != found.passage.title],
        )
        for found, results in zip(made, ranked, strict=True)
    )
    return [item for item in kept if item]


def evaluation_set(
    labelled: LabelledSet,
    asked: Sequence[Question],
    index: LocalIndex,
    *,
    depth: int,
    qrels: dict[str, dict[str, int]],
) -> EvaluationSet:
    """Questions with `depth` candidates: BM25's best, or the question's own in BM25's order.

    Judgements are those of `qrels`, or the question's positives if it has none.
    """
    judged = []
    for question in asked:
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
    for question in questions.share_positives(labelled.questions):
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
    folder: Path, work: Path, *, without: Collection[str] = (), quick: bool = False, seed: int
) -> tuple[list[Item], list[EvaluationSet]]:
    """(training items, held-out questions of each set's train split with their candidates)."""
    found: list[Item] = []
    held_out = []
    for name, spec in TRAIN.items():
        labelled = questions.read_set(folder / name, split="train")
        if spec.same_title:
            labelled = labelled._replace(questions=questions.share_positives(labelled.questions))
        index = open_index(folder / name, work / "index")
        if name in HELD_BACK:
            labelled = labelled._replace(questions=tuple(q for q in labelled.questions if not q.candidates))
        kept, out = questions.hold_out(labelled.questions, count=4 if quick else HELD_OUT, seed=seed)
        out = sorted(out, key=lambda q: fingerprint(q.query_id))[: 4 if quick else HELD_OUT]
        if spec.same_title:
            out = list(within_titles(labelled._replace(questions=tuple(out))).questions)
        held_out.append(evaluation_set(labelled, out, index, depth=HELD_OUT_DEPTH, qrels={}))
        if name in without:
            continue
        if quick:
            spec = spec._replace(questions=10, made_from=10)
        found += items_of(labelled, kept, index, spec=spec, seed=seed)
        found += made_items_of(labelled, index, count=spec.made_from, seed=seed)
    return found, held_out
