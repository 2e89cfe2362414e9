"""Systems side by side: their lists measured over the same queries, and tested against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rerank_core.errors import ConfigError, JudgementError
from rerank_core.evaluation import measures
from rerank_core.evaluation.measures import Level
from rerank_core.evaluation.qrels import Qrels
from rerank_core.evaluation.significance import Verdict, against_baselines

Order = list[tuple[str, float | None]]
"""One query's items with their scores, best first."""

TESTED = ("nDCG@10", "MAP")


class Measured(NamedTuple):
    """One system on one set."""

    by_query: dict[
        str, dict[str, float]
    ]  # by measure of rerank_core.evaluation.measures.MEASURES, then by query_id
    f1: float | None  # None: its scores are no logits
    auc: float | None
    pairs: dict[str, int]  # (query, item) ranked, by query_id
    missing: int  # queries that it ranks nothing for: zero in every measure
    by_tags: dict[str, float]  # of a model: MAP by mode of tags, the measured mode first
    failed: int = 0  # pairs that the model could not score, and that left the list
    truncated: int = 0  # pairs that hold more tokens than the model was given
    unscored: int = 0  # pairs that a cascade pruned: ranked, but in neither F1 nor AUC

    @property
    def means(self) -> dict[str, float]:
        return measures.means(self.by_query)


class SetResult(NamedTuple):
    """All systems on one set."""

    name: str
    level: Level
    told: str  # what the candidates are
    fingerprint: str  # of the index, or a night's run_id
    queries: int
    types: dict[str, str]  # by query_id
    reach: float  # share of what is relevant that is among the candidates
    counts: dict[str, int]
    systems: dict[str, Measured]
    notes: tuple[str, ...] = ()


class Result(NamedTuple):
    """Everything that was measured."""

    sets: list[SetResult]
    baselines: dict[str, str]  # by set
    verdicts: dict[str, dict[tuple[str, str], Verdict]]  # by measure of TESTED, then by set and system
    fingerprints: dict[str, str]  # of the models, by system


def compare(sets: Sequence[SetResult], *, baseline: str, fingerprints: Mapping[str, str]) -> Result:
    """Put sets into one table, with tests of each system against the baseline.

    Args:
        sets: with distinct names.
        baseline: a system's name; "" is each set's first, and so it is on a set that lacks the system.
        fingerprints: of the models, by system.

    Raises:
        ConfigError: no set has the baseline.
    """
    check_baseline(baseline, [name for one in sets for name in one.systems])
    baselines = {one.name: baseline if baseline in one.systems else next(iter(one.systems)) for one in sets}
    verdicts = {
        measure: against_baselines(
            {one.name: {s: m.by_query[measure] for s, m in one.systems.items()} for one in sets}, baselines
        )
        for measure in TESTED
    }
    return Result(list(sets), baselines, verdicts, dict(fingerprints))


def check_baseline(baseline: str, names: Sequence[str]) -> None:
    """Refuse a baseline that is none of the systems.

    Raises:
        ConfigError: naming the systems.
    """
    if baseline and baseline not in names:
        known = ", ".join(dict.fromkeys(names))
        raise ConfigError(f"no system is called {baseline!r}; --baseline is one of: {known}")


def measured(
    orders: Mapping[str, Order],
    *,
    qrels: Qrels,
    min_relevance: int = 1,
    logits: bool,
) -> Measured:
    """Measure one system's lists.

    Args:
        orders: (item, score) by query_id, best first; a score of None is in the order alone.
        qrels: of the queries that are measured, no others.
        min_relevance: lowest grade that counts as relevant.
        logits: whether scores are logits, so that F1 means something.
    """
    run = {q: {item: -float(n) for n, (item, _) in enumerate(order)} for q, order in orders.items()}
    pairs = [
        (score, qrels[query].get(item, 0) >= min_relevance)
        for query, order in orders.items()
        for item, score in order
    ]
    known = [(score, label) for score, label in pairs if score is not None]
    scores, labels = [score for score, _ in known], [label for _, label in known]
    return Measured(
        by_query=measures.measure_by_query(run, qrels, min_relevance=min_relevance),
        f1=measures.f1_at_half(scores, labels) if logits else None,
        auc=measures.auc(scores, labels),
        pairs={query: len(order) for query, order in orders.items()},
        missing=sum(1 for query in qrels if not orders.get(query)),
        by_tags={},
        unscored=len(pairs) - len(known),
    )


def run_orders(orders: Mapping[str, Mapping[str, float]], qrels: Qrels, *, told: str) -> dict[str, Order]:
    """A run file's lists of the queries that are measured.

    Raises:
        JudgementError: it has none of them.
    """
    found: dict[str, Order] = {query: [*orders[query].items()] for query in qrels if query in orders}
    if not found:
        raise JudgementError(
            f"{told}: the run ranks none of the {len(qrels):,} judged queries; are its ids the set's?"
        )
    return found
