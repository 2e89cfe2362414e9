"""`nightrank evaluate`: how good rerankers are on judged sets, side by side.

Every system is measured over the same questions; one that has nothing for a question gets zero for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipelines.evaluate.judged_sets import JudgedSet
from pipelines.evaluate.scores import fused, in_chunks, scored
from pipelines.evaluate.systems import Opened
from rerank_core.evaluation.comparison import Measured, Order, SetResult, measured, run_orders
from rerank_core.evaluation.qrels import Qrels
from rerank_core.ranking.order import final_logit, rank
from schemas.records import QueryGroup, RankedGroup


class _Scores:
    """Grows by what one system, in one mode of tags, makes of groups."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.failed = self.truncated = 0

    def add(self, groups: Sequence[RankedGroup]) -> None:
        for group in groups:
            self.orders[group.query.query_id] = [
                (one.scored.candidate.passage_id, final_logit(one.scored)) for one in group.candidates
            ]
            self.truncated += sum(one.scored.overflow > 0 for one in group.candidates)


def evaluate_set(
    judged: JudgedSet, systems: Sequence[Opened], *, on_scored: Callable[[int], None] = lambda pairs: None
) -> SetResult:
    """Measure every system on one set.

    Args:
        judged: the set.
        systems: opened, their names distinct.
        on_scored: told how many inputs were scored since it was last called.

    Raises:
        JudgementError: a run file ranks none of the set's queries.
        ScoringFailed: a model is broken.
    """
    scores, found, without_text = _score_all(judged, systems, on_scored=on_scored)
    lowest, own = judged.wanted.min_relevance, len(judged.own)
    relevant = sum(grade >= lowest for grades in judged.qrels.values() for grade in grades.values())
    return SetResult(
        name=judged.name,
        level=judged.wanted.level,
        told=_told(judged),
        fingerprint=judged.bm25.fingerprint,
        queries=len(judged.queries),
        types=judged.types,
        reach=found / relevant,
        counts=judged.counts | {"with_own_candidates": own, "without_text": without_text},
        systems={
            one.system.name: _measured(one, scores, qrels=judged.qrels, min_relevance=lowest)
            for one in systems
        },
    )


def logits_of(
    judged: JudgedSet, opened: Opened, *, on_scored: Callable[[int], None] = lambda pairs: None
) -> dict[str, Order]:
    """A system's lists for a set's questions, with its logits, by query_id; fused ones where it has weights."""
    scores, *_ = _score_all(judged, [opened], on_scored=on_scored)
    return scores[opened.system.name, opened.modes[0]].orders


def _score_all(
    judged: JudgedSet, systems: Sequence[Opened], *, on_scored: Callable[[int], None]
) -> tuple[dict[tuple[str, str], _Scores], int, int]:
    """(lists by system and mode, relevant items among the candidates, candidates without a text)."""
    scores = {(one.system.name, mode): _Scores() for one in systems for mode in one.modes}
    for one in systems:
        if one.orders is not None:
            told = f"{one.system.path} and {judged.name}"
            scores[one.system.name, "none"].orders = run_orders(one.orders, judged.qrels, told=told)
    found = without_text = 0
    for groups, rejected in in_chunks(judged, tagged=any(set(one.modes) - {"none"} for one in systems)):
        found += sum(_relevant_in(judged, group) for group in groups)
        without_text += sum(record.unit == "pair" for record in rejected)
        for one in systems:
            if one.system.kind == "bm25":
                scores[one.system.name, "none"].add([_in_bm25_order(group) for group in groups])
            elif one.scorer is not None:
                for made in scored(groups, one, on_scored=on_scored):
                    into = scores[one.system.name, made.mode]
                    into.add([rank(group) for group in fused(made.groups, one)])
                    into.failed += made.failed
    return scores, found, without_text


def _told(judged: JudgedSet) -> str:
    """What the candidates are."""
    own, best = len(judged.own), f"BM25's best {judged.wanted.top_k}"
    if own == len(judged.queries):
        return "their own"
    return f"{own:,} with their own, else {best}" if own else best


def _measured(
    one: Opened, scores: Mapping[tuple[str, str], _Scores], *, qrels: Qrels, min_relevance: int
) -> Measured:
    """One system in its first mode of tags, and its MAP in all of them."""
    found = {
        mode: measured(
            scores[one.system.name, mode].orders,
            qrels=qrels,
            min_relevance=min_relevance,
            logits=one.gives_logits,
        )
        for mode in one.modes
    }
    first = scores[one.system.name, one.modes[0]]
    return found[one.modes[0]]._replace(
        failed=first.failed,
        truncated=first.truncated,
        by_tags={mode: m.means["MAP"] for mode, m in found.items()} if one.scorer else {},
    )


def _in_bm25_order(group: QueryGroup) -> RankedGroup:
    """BM25's own list, its scores in the logits' place."""
    ranked = rank(
        group._replace(candidates=tuple(c._replace(logit=c.candidate.bm25_score) for c in group.candidates))
    )
    return ranked._replace(candidates=tuple(sorted(ranked.candidates, key=lambda c: c.rank_before)))


def _relevant_in(judged: JudgedSet, group: QueryGroup) -> int:
    grades = judged.qrels[group.query.query_id]
    found = (grades.get(one.candidate.passage_id, 0) for one in group.candidates)
    return sum(grade >= judged.wanted.min_relevance for grade in found)
