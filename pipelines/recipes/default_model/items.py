"""What the model learns from: a query, passages that answer it and passages that do not, and a draw of them a step."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipelines.recipes.default_model.questions import Question, SetPassage, eligible_negatives, rng
from rerank_core.text import fingerprint

POSITIVES, UNSURE = 4, 1  # of an item, at most
NEAR, EVERY, DEPTH = 11, 5, 40
"""A pool of negatives: BM25's first NEAR, and every EVERYth of those that follow, down to DEPTH."""


class Item(NamedTuple):
    """One query and its passages."""

    set: str
    made: bool  # made from a raw passage: its positive is probable, so the teacher alone is taught
    query: str
    positives: tuple[SetPassage, ...]  # not empty
    negatives: tuple[SetPassage, ...]  # not empty
    unsure: tuple[SetPassage, ...] = ()  # not judged relevant, but with an answer: for the teacher alone

    @property
    def passages(self) -> tuple[SetPassage, ...]:
        return (*self.positives, *self.negatives, *self.unsure)


def item_of(
    name: str,
    question: Question,
    ranked: Sequence[SetPassage],
    corpus: Mapping[str, SetPassage],
    *,
    same_title: Sequence[SetPassage] = (),
    seed: int = 7,
) -> Item | None:
    """The item of a labelled question; None without a positive or a negative.

    Args:
        name: the set's.
        question: its own candidates, if it has any, replace `ranked`.
        ranked: BM25's best passages, best first.
        corpus: doc_id -> passage.
        same_title: passages that come before BM25's first ten: where every document could answer the question, the hard
            negatives are the other passages of the document that is asked about.
        seed: of the draw among many positives.
    """
    pool = [corpus[d] for d in question.candidates] if question.candidates else list(ranked)
    if same_title:
        known = {p.doc_id for p in same_title}
        pool = [*same_title, *[p for p in pool if p.doc_id not in known][:10]]
    negatives = eligible_negatives(question, pool)
    taken = {p.doc_id for p in negatives} | question.positives
    unsure = [p for p in pool if p.doc_id not in taken][:UNSURE]
    by_hash = sorted(question.positives, key=lambda d: fingerprint(str(seed), question.query_id, d))
    positives = [corpus[d] for d in by_hash if d in corpus][:POSITIVES]
    if not (negatives and positives):
        return None
    return Item(name, False, question.text, tuple(positives), _spread(negatives), tuple(unsure))


def made_item(name: str, query: str, passage: SetPassage, ranked: Sequence[SetPassage]) -> Item | None:
    """The item of a query that was made from a passage; None with fewer than three other passages."""
    others = [p for p in ranked if p.doc_id != passage.doc_id]
    return Item(name, True, query, (passage,), _spread(others)) if len(others) >= 3 else None


def _spread(pool: Sequence[SetPassage]) -> tuple[SetPassage, ...]:
    return (*pool[:NEAR], *pool[NEAR:DEPTH:EVERY])


class Drawn(NamedTuple):
    """An item as one step sees it."""

    item: Item
    positives: tuple[SetPassage, ...]
    negatives: tuple[SetPassage, ...]


class Draw(NamedTuple):
    """How a step's items are drawn."""

    queries: int = 8
    positives: int = 2  # of an item, at most
    negatives: int = 6
    made: float = 0.25  # share of made queries
    seed: int = 7


SHARES = {"hotpotqa": 0.22, "musique": 0.14, "nq": 0.22, "squad": 0.22, "policyqa": 0.2}
"""Of a step's queries, by set; of those that are there."""


def by_kind(items: Sequence[Item]) -> dict[tuple[str, bool], list[Item]]:
    """The items by set and by whether they are made."""
    found: dict[tuple[str, bool], list[Item]] = {}
    for item in items:
        found.setdefault((item.set, item.made), []).append(item)
    return found


def drawn(kinds: Mapping[tuple[str, bool], Sequence[Item]], step: int, draw: Draw) -> list[Drawn]:
    """The items of a step, the same for a step's number: a training that was stopped goes on as it would have."""
    generator = rng(draw.seed, "step", step)
    sets = sorted({name for name, _ in kinds})
    chosen = []
    for _ in range(draw.queries):
        (name,) = generator.choices(sets, [SHARES[one] for one in sets])
        made = generator.random() < draw.made
        item = generator.choice(kinds.get((name, made)) or kinds[name, not made])
        chosen.append(
            Drawn(
                item,
                _some(item.positives, draw.positives, generator),
                _some(item.negatives, draw.negatives, generator),
            )
        )
    return chosen


def _some(of: Sequence[SetPassage], count: int, generator: random.Random) -> tuple[SetPassage, ...]:
    return tuple(generator.sample(of, min(count, len(of))))
