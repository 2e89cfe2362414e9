"""`nightrank evaluate`: how good rerankers are on judged sets, side by side.

A question goes through the functions of a night (rerank_core.stages, rerank_core.ranking), so that what is measured is
what would be served: the same tags, inputs, ties, and a pair that cannot be scored leaves the list. Every system is
measured over the same questions; one that has nothing for a question gets zero for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pipelines.judged_sets import JudgedSet, candidates
from pipelines.systems import Opened
from rerank_core import stages
from rerank_core.config import Tagging
from rerank_core.features import default_recogniser, facts_fingerprint
from rerank_core.features.reader import PassageReader
from rerank_core.judgements import Qrels
from rerank_core.ranking import rank
from rerank_core.shortcut import retag
from rerank_core.side_by_side import Measured, Order, SetResult, measured, run_orders
from schemas.records import Query, QueryGroup, RankedGroup

QUERIES_AT_ONCE = 32


class _Scores:
    """Grows by what one system, in one mode of tags, makes of groups."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.failed = self.truncated = 0

    def add(self, groups: Sequence[RankedGroup]) -> None:
        for group in groups:
            self.orders[group.query.query_id] = [
                (one.scored.candidate.passage_id, one.scored.logit) for one in group.candidates
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
    """A system's lists for a set's questions, with its logits, by query_id."""
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
    reader = _reader() if any(set(one.modes) - {"none"} for one in systems) else None
    found = without_text = 0
    for queries in _chunks(judged.queries):
        groups, rejected = candidates(judged, queries)
        found += sum(_relevant_in(judged, group) for group in groups)
        without_text += sum(record.unit == "pair" for record in rejected)
        groups = _tagged(groups, reader) if reader else groups
        for one in systems:
            for mode in one.modes:
                _score(groups, one, mode=mode, into=scores[one.system.name, mode], on_scored=on_scored)
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


def _score(
    groups: Sequence[QueryGroup],
    one: Opened,
    *,
    mode: str,
    into: _Scores,
    on_scored: Callable[[int], None],
) -> None:
    if one.system.kind == "bm25":
        into.add([_in_bm25_order(group) for group in groups])
    elif one.scorer is not None:
        shown = [retag(group, mode=mode) for group in groups]
        keyed = [
            stages.reuse_scores(group, {}, model_fingerprint=one.scorer.fingerprint, tagged=True)
            for group in shown
        ]
        scored, rejected = stages.score_groups(keyed, one.scorer, tagged=True, on_scored=on_scored)
        into.add([rank(group) for group in scored if group.candidates])
        into.failed += sum(record.unit == "pair" for record in rejected)


def _in_bm25_order(group: QueryGroup) -> RankedGroup:
    """BM25's own list, its scores in the logits' place."""
    ranked = rank(
        group._replace(candidates=tuple(c._replace(logit=c.candidate.bm25_score) for c in group.candidates))
    )
    return ranked._replace(candidates=tuple(sorted(ranked.candidates, key=lambda c: c.rank_before)))


def _reader() -> PassageReader:
    recogniser = default_recogniser(Tagging())
    known = facts_fingerprint(recogniser)
    return PassageReader(recogniser, facts_fingerprint=known, look_up=lambda keys: {})


def _tagged(groups: Sequence[QueryGroup], reader: PassageReader) -> list[QueryGroup]:
    passages = stages.passages_to_read(groups)
    found = reader.read(passages)
    facts = {passage: found.facts[key] for passage, key in zip(passages, found.keys, strict=True)}
    return [stages.tag_group(group, facts, config=Tagging()) for group in groups]


def _relevant_in(judged: JudgedSet, group: QueryGroup) -> int:
    grades = judged.qrels[group.query.query_id]
    found = (grades.get(one.candidate.passage_id, 0) for one in group.candidates)
    return sum(grade >= judged.wanted.min_relevance for grade in found)


def _chunks(queries: Sequence[Query]) -> Iterator[Sequence[Query]]:
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        yield queries[start : start + QUERIES_AT_ONCE]
