"""Systems side by side: their rankings measured over the same queries, and tested against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rerank_core.errors import ConfigError, JudgementError
from rerank_core.evaluation import measures
from rerank_core.evaluation.measures import Level
from rerank_core.evaluation.qrels import Qrels
from rerank_core.evaluation.significance import Verdict, against_baselines

Order = list[tuple[str, float | None]]
"""One query's items with their scores, best first; no item twice."""

TESTED = ("nDCG@10", "MAP")


class SystemResult(NamedTuple):
    """One system on one set."""

    by_query: dict[str, dict[str, float]]  # by measure (measures.MEASURES), then by query_id
    f1: float | None  # None: its scores are no logits
    auc: float | None
    pairs: dict[str, int]  # (query, item) pairs ranked, by query_id
    missing: int  # queries that it ranks nothing for: zero in every measure
    by_tags: dict[str, float]  # of a model: MAP by mode of tags, the measured mode first
    failed: int = 0  # pairs that the model could not score, and that left the list
    truncated: int = 0  # pairs with more tokens than the model reads
    unscored: int = 0  # pairs that the cascade pruned: ranked, but in neither F1 nor AUC

    @property
    def means(self) -> dict[str, float]:
        return measures.means(self.by_query)


class SetResult(NamedTuple):
    """All systems on one set."""

    name: str
    level: Level
    candidates: str  # what is ranked, in words
    fingerprint: str  # of the index, or a night's run_id
    queries: int
    types: dict[str, str]  # by query_id
    candidate_recall: float  # share of the relevant items that is among the candidates
    counts: dict[str, int]
    systems: dict[str, SystemResult]
    notes: tuple[str, ...] = ()


class Result(NamedTuple):
    """Everything that was measured."""

    sets: list[SetResult]
    baselines: dict[str, str]  # by set
    verdicts: dict[str, dict[tuple[str, str], Verdict]]  # by measure of TESTED, then by (set, system)
    fingerprints: dict[str, str]  # of the models, by system
    settings: dict[str, Any]  # options of the evaluation


def compare_systems(
    sets: Sequence[SetResult],
    *,
    baseline: str,
    fingerprints: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """Put sets into one result, with tests of each system against the baseline.

    Args:
        sets: with distinct names.
        baseline: a system's name; "" is each set's first, and so it is on a set without the system.
        fingerprints: of the models, by system.
        settings: of the evaluation, for the record.

    Raises:
        ConfigError: no set has the baseline.
    """
    check_baseline(baseline, [system for judged in sets for system in judged.systems])
    baselines = {s.name: baseline if baseline in s.systems else next(iter(s.systems)) for s in sets}
    verdicts = {
        measure: against_baselines(
            {s.name: {name: system.by_query[measure] for name, system in s.systems.items()} for s in sets},
            baselines,
        )
        for measure in TESTED
    }
    return Result(list(sets), baselines, verdicts, dict(fingerprints), dict(settings or {}))


def check_baseline(baseline: str, names: Sequence[str]) -> None:
    """Refuse a baseline that is none of the systems.

    Raises:
        ConfigError: naming the systems.
    """
    if baseline and baseline not in names:
        known = ", ".join(dict.fromkeys(names))
        raise ConfigError(f"no system is called {baseline!r}; --baseline is one of: {known}")


def measure_system(
    orders: Mapping[str, Order],
    *,
    qrels: Qrels,
    min_relevance: int = 1,
    logits: bool,
) -> SystemResult:
    """Measure one system's rankings.

    Args:
        orders: (item, score) by query_id, best first; an item with a score of None counts in the order alone.
        qrels: of the queries that are measured, no others.
        min_relevance: lowest grade that is relevant.
        logits: whether scores are logits, so that F1 is defined.
    """
    pairs = [
        (score, qrels[query].get(item, 0) >= min_relevance)
        for query, order in orders.items()
        for item, score in order
    ]
    scored = [(score, label) for score, label in pairs if score is not None]
    scores, labels = [score for score, _ in scored], [label for _, label in scored]
    rankings = {query: [item for item, _ in order] for query, order in orders.items()}
    return SystemResult(
        by_query=measures.measure_by_query(rankings, qrels, min_relevance=min_relevance),
        f1=measures.f1_at_half(scores, labels) if logits else None,
        auc=measures.auc(scores, labels),
        pairs={query: len(order) for query, order in orders.items()},
        missing=sum(1 for query in qrels if not orders.get(query)),
        by_tags={},
        unscored=len(pairs) - len(scored),
    )


def judged_orders(run: Mapping[str, Mapping[str, float]], qrels: Qrels, *, files: str) -> dict[str, Order]:
    """A run file's rankings of the queries that are measured.

    Args:
        run: score by query_id, then by item, best first.
        qrels: of the queries that are measured.
        files: names of the run and of the judgements, for the message.

    Raises:
        JudgementError: the run has none of the queries.
    """
    orders: dict[str, Order] = {query: [*run[query].items()] for query in qrels if query in run}
    if not orders:
        raise JudgementError(
            f"{files}: the run ranks none of the {len(qrels):,} judged queries; check that both use the same query ids"
        )
    return orders
