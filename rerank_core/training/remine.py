"""A later round of a training: negatives are mined again, by the scores of the previous round's model.

The rules are those of a night (rerank_core.mining), on its positives and on a pool of candidates that may hold more
than the night's. New is a judge of false negatives: candidates that are probably relevant but not labelled.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rerank_core.config.remining import Remining
from rerank_core.config.training import Negatives, TrainingConfig
from rerank_core.features.render import passage_text, with_tags
from rerank_core.mining.hard_negatives import Judge, mine
from rerank_core.ranking.order import rank, sigmoid
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.protocol import Scorer
from rerank_core.text import fingerprint
from rerank_core.training.dev_set import MEASURE
from rerank_core.training.groups import Group
from rerank_core.training.metrics_log import Line
from schemas.records import Candidate, HardNegative, Query, QueryGroup, ScoredCandidate


class Pool(NamedTuple):
    """A query with all candidates for its negatives."""

    query_id: str
    query: str
    positives: frozenset[str]  # passage_ids, all of them among the candidates
    candidates: tuple[Candidate, ...]
    tags: tuple[str, ...]  # rendered, one per candidate; "" without tags


class Rater(NamedTuple):
    """A scorer that mines or judges, and how it is used."""

    scorer: Scorer
    tagged: bool  # it reads the tags
    cosine: bool = False  # its scores are cosines, not logits


class Tally(NamedTuple):
    """What happened to every pair (positive, candidate): kept and dropped add up to candidates["pairs"]."""

    # queries, pairs, published, other_labelled (positives of another run); of the dense ones: dense, dense_published,
    # dense_labelled
    candidates: Counter[str]
    # by kept_by: top, random, easy
    kept: Counter[str]
    # by the first rule that dropped it, see `rerank_core.mining.hard_negatives.mine`; or unscored
    dropped: Counter[str]

    def as_json(self) -> dict[str, Any]:
        """The counts as plain dictionaries, for figures.jsonl and the model card."""
        return {name: dict(sorted(counts.items())) for name, counts in self._asdict().items()}


def of_round(config: TrainingConfig, number: int, newest: Path) -> TrainingConfig:
    """The configuration of one round: stages with the round in their names, from the base or the newest model."""
    if number == 1:
        return config
    stages = tuple(dataclasses.replace(stage, name=f"{stage.name}-r{number}") for stage in config.stages)
    model = config.model if config.remining.restart else str(newest)
    return dataclasses.replace(config, stages=stages, model=model, rounds=1)


def best_round(lines: Sequence[Line]) -> int:
    """The round whose model is kept: the best on its last stage's dev set, the earlier of equals; else the last."""
    rounds = [line for line in lines if line["kind"] == "round"]
    if not rounds:
        return 1
    if any(MEASURE not in line for line in rounds):
        return int(rounds[-1]["round"])
    return int(max(rounds, key=lambda line: (line[MEASURE], -line["round"]))["round"])


def describe(mined: Mapping[str, Any]) -> str:
    """A sentence about a stage's "mined" record, for people."""
    candidates, corpus = mined["candidates"], mined.get("corpus")
    parts = [
        f"{candidates.get('queries', 0):,} queries with {candidates.get('published', 0):,} published candidates"
    ]
    if corpus:
        rejected = corpus.get("lines_rejected", 0) + corpus.get("without_text", 0)
        parts.append(
            f"{candidates.get('dense', 0):,} new ones among the best {corpus['top_k']} by {corpus['model']} in the "
            f"{corpus['passages']:,} passages of {corpus['name']}"
            + (f" ({rejected:,} were skipped)" if rejected else "")
        )
        if candidates.get("dense_labelled"):
            parts.append(f"{candidates['dense_labelled']:,} of its results left out as labelled positives")
    if candidates.get("other_labelled"):
        parts.append(f"{candidates['other_labelled']:,} left out as positives of another run")
    kept, dropped = (
        ", ".join(f"{count:,} {name}" for name, count in mined[part].items()) or "none"
        for part in ("kept", "dropped")
    )
    judge = {"off": "none", "model": "the model itself"}.get(mined["judge"], f"the {mined['judge']}")
    return (
        f"{', '.join(parts)}; of {candidates.get('pairs', 0):,} pairs (positive, candidate) kept: {kept}; "
        f"dropped: {dropped}; judge of false negatives: {judge}"
    )


def mine_pools(
    pools: Sequence[Pool],
    *,
    model: Rater,
    teacher: Rater | None,
    remining: Remining,
    negatives: Negatives,
    counts: Counter[str],
    tally: Tally,
) -> Iterator[Group]:
    """Groups of the pools' positives with negatives mined by the model's scores.

    Args:
        pools: queries with their candidates, which are scored together.
        model: the rules apply to its scores.
        teacher: the judge, whose logits the groups get unless they are cosines; None: the model itself.
        remining: the rules, and the judge's margin.
        negatives: how many of each kind a positive gets.
        counts: "groups_without_negatives" and "negatives_left_out" are added.
        tally: what happened to each candidate is added.

    Raises:
        ScoringFailed: a scorer fails.
    """
    rated = _rate(model, pools)
    judged = _rate(teacher, pools) if teacher else rated
    for pool, own, theirs in zip(pools, rated, judged, strict=True):
        mined = _mine_pool(pool, own, theirs, _judge(pool, theirs, teacher, remining), remining, tally)
        logits = own if teacher is None or teacher.cosine else theirs
        yield from _groups(pool, mined, logits, negatives=negatives, counts=counts)


def _rate(rater: Rater, pools: Sequence[Pool]) -> list[list[float | None]]:
    """A logit or cosine for each candidate of each pool; None where the scorer fails on the pair."""
    pairs = [
        with_tags(tags if rater.tagged else "", pool.query, passage_text(candidate.title, candidate.text))
        for pool in pools
        for candidate, tags in zip(pool.candidates, pool.tags, strict=True)
    ]
    logits = iter(score_checked(rater.scorer, [(pair.query, pair.passage) for pair in pairs]).logits)
    return [list(itertools.islice(logits, len(pool.candidates))) for pool in pools]


def _judge(
    pool: Pool, theirs: Sequence[float | None], teacher: Rater | None, remining: Remining
) -> Judge | None:
    if remining.false_negatives.judge == "off":
        return None
    cosine = teacher is not None and teacher.cosine
    scores = {
        candidate.passage_id: score if cosine else sigmoid(score)
        for candidate, score in zip(pool.candidates, theirs, strict=True)
        if score is not None
    }
    return Judge(scores, remining.false_negatives.margin)


def _mine_pool(
    pool: Pool,
    own: Sequence[float | None],
    theirs: Sequence[float | None],
    judge: Judge | None,
    remining: Remining,
    tally: Tally,
) -> list[HardNegative]:
    """The pool's negatives, grouped by positive; candidates that a scorer failed on are dropped and counted."""
    scored = tuple(
        ScoredCandidate(candidate, None, "", logit, False, 0)
        for candidate, logit, judged in zip(pool.candidates, own, theirs, strict=True)
        if logit is not None and judged is not None
    )
    positives = pool.positives & {candidate.candidate.passage_id for candidate in scored}
    total = len(pool.candidates)
    tally.candidates.update(queries=1, pairs=len(pool.positives) * total)
    unscored = len(pool.positives) * total - len(positives) * len(scored)
    if unscored:
        tally.dropped["unscored"] += unscored
    if not positives:
        return []
    group = rank(QueryGroup(Query(pool.query_id, pool.query, 1, 0, ()), scored))
    mined = mine(group, positives, config=remining.mining, label_source="published", judge=judge)
    tally.kept.update(mined.kept)
    tally.dropped.update(mined.rejected)
    return mined.negatives


def _groups(
    pool: Pool,
    mined: Sequence[HardNegative],
    logits: Sequence[float | None],
    *,
    negatives: Negatives,
    counts: Counter[str],
) -> Iterator[Group]:
    position = {candidate.passage_id: n for n, candidate in enumerate(pool.candidates)}
    without = len(pool.positives)
    for positive_id, of_positive in itertools.groupby(
        mined, key=lambda negative: _id(negative.positive.scored)
    ):
        rows = list(of_positive)  # hardest first, as they are ranked
        taken = [
            *[row for row in rows if row.kept_by != "easy"][: negatives.hard],
            *[row for row in rows if row.kept_by == "easy"][: negatives.easy],
        ]
        counts["negatives_left_out"] += len(rows) - len(taken)
        if not taken:
            continue
        without -= 1
        members = [position[positive_id], *(position[_id(row.negative.scored)] for row in taken)]
        texts = [passage_text(member.title, member.text) for member in (pool.candidates[n] for n in members)]
        yield Group(
            fingerprint(pool.query_id, positive_id)[:16],
            pool.query,
            tuple(texts),
            tuple(pool.tags[n] for n in members),
            tuple(logit for n in members if (logit := logits[n]) is not None),
            min(row.margin for row in taken),
            min(row.negative.rank_before for row in taken),
        )
    counts["groups_without_negatives"] += without


def _id(candidate: ScoredCandidate) -> str:
    return candidate.candidate.passage_id
