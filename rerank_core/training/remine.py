"""A later round of a training: negatives mined again, by the scores of the model that the round before left.

The rules are those of a night (rerank_core.mining), on its positives and on a pool of candidates that may hold more
than it searched. What is new is a judge, who says which candidates are positives that nobody labelled.
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
    """A query with all candidates that its negatives may come from."""

    query_id: str
    query: str
    positives: frozenset[str]  # passage_ids, all of them among the candidates
    candidates: tuple[Candidate, ...]
    tags: tuple[str, ...]  # rendered, one a candidate; "" without


class Rater(NamedTuple):
    """A scorer, and how it is asked."""

    scorer: Scorer
    tagged: bool  # it is shown the tags
    cosine: bool = False  # its numbers are cosines, not logits


class Tally(NamedTuple):
    """What became of every (positive, candidate): kept and dropped add up to candidates["pairs"]."""

    candidates: Counter[
        str
    ]  # queries, pairs, published; and of dense ones, which were added and which were not
    kept: Counter[str]  # by kept_by: top, random, easy
    dropped: Counter[
        str
    ]  # by the first rule that dropped it, see `rerank_core.mining.hard_negatives.mine`; unscored

    def plain(self) -> dict[str, Any]:
        """For figures and the model card."""
        return {name: dict(sorted(counts.items())) for name, counts in self._asdict().items()}


def of_round(config: TrainingConfig, number: int, newest: Path) -> TrainingConfig:
    """The training that a round is: its stages under names of their own, from the base or from the newest model."""
    if number == 1:
        return config
    stages = tuple(dataclasses.replace(stage, name=f"{stage.name}-r{number}") for stage in config.stages)
    model = config.model if config.remining.restart else str(newest)
    return dataclasses.replace(config, stages=stages, model=model, rounds=1)


def best_round(lines: Sequence[Line]) -> int:
    """The round whose model is kept: the best by its last stage's dev set, the earlier of equals; else the last."""
    rounds = [one for one in lines if one["kind"] == "round"]
    if not rounds:
        return 1
    if any(MEASURE not in one for one in rounds):
        return int(rounds[-1]["round"])
    return int(max(rounds, key=lambda one: (one[MEASURE], -one["round"]))["round"])


def describe(mined: Mapping[str, Any]) -> str:
    """A sentence of what a stage's "mined" says, for a person."""
    found, corpus = mined["candidates"], mined.get("corpus")
    parts = [f"{found.get('queries', 0):,} queries with {found.get('published', 0):,} published candidates"]
    if corpus:
        rejected = corpus.get("lines_rejected", 0) + corpus.get("without_text", 0)
        parts.append(
            f"{found.get('dense', 0):,} more among the best {corpus['top_k']} by {corpus['model']} in the "
            f"{corpus['passages']:,} passages of {corpus['name']}"
            + (f" ({rejected:,} were left out)" if rejected else "")
        )
        if found.get("dense_labelled"):
            parts.append(f"{found['dense_labelled']:,} of its finds left out, as they are labelled positive")
    kept, dropped = (
        ", ".join(f"{count:,} {name}" for name, count in mined[part].items()) or "none"
        for part in ("kept", "dropped")
    )
    judge = {"off": "nobody", "model": "the model itself"}.get(mined["judge"], f"the {mined['judge']}")
    return (
        f"{', '.join(parts)}; of {found.get('pairs', 0):,} (positive, candidate) kept {kept}; dropped {dropped}; "
        f"who judges what is a false negative: {judge}"
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
        pools: queries with their candidates, all of which are scored together.
        model: whose scores the rules are applied to.
        teacher: who judges, and whose logits the groups carry, unless they are cosines; None: the model itself.
        remining: the rules, and how sure the judge must be.
        negatives: how many of each kind a positive gets.
        counts: learns of "groups_without_negatives" and "negatives_left_out".
        tally: learns what became of each candidate.

    Raises:
        ScoringFailed: a scorer is broken.
    """
    rated = _rate(model, pools)
    judged = _rate(teacher, pools) if teacher else rated
    for pool, own, theirs in zip(pools, rated, judged, strict=True):
        found = _mine_pool(pool, own, theirs, _judge(pool, theirs, teacher, remining), remining, tally)
        logits = own if teacher is None or teacher.cosine else theirs
        yield from _groups(pool, found, logits, negatives=negatives, counts=counts)


def _rate(rater: Rater, pools: Sequence[Pool]) -> list[list[float | None]]:
    """A logit or cosine for each candidate of each pool; None where the scorer fails."""
    sides = [
        with_tags(tags if rater.tagged else "", pool.query, passage_text(one.title, one.text))
        for pool in pools
        for one, tags in zip(pool.candidates, pool.tags, strict=True)
    ]
    logits = iter(score_checked(rater.scorer, [(side.query, side.passage) for side in sides]).logits)
    return [list(itertools.islice(logits, len(pool.candidates))) for pool in pools]


def _judge(
    pool: Pool, theirs: Sequence[float | None], teacher: Rater | None, remining: Remining
) -> Judge | None:
    if remining.false_negatives.judge == "off":
        return None
    cosine = teacher is not None and teacher.cosine
    scores = {
        one.passage_id: score if cosine else sigmoid(score)
        for one, score in zip(pool.candidates, theirs, strict=True)
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
    """The pool's negatives, those of a positive together; what neither scorer could read is dropped and counted."""
    scored = tuple(
        ScoredCandidate(one, None, "", logit, False, 0)
        for one, logit, opinion in zip(pool.candidates, own, theirs, strict=True)
        if logit is not None and opinion is not None
    )
    positives = pool.positives & {one.candidate.passage_id for one in scored}
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
    found: Sequence[HardNegative],
    logits: Sequence[float | None],
    *,
    negatives: Negatives,
    counts: Counter[str],
) -> Iterator[Group]:
    place = {one.passage_id: n for n, one in enumerate(pool.candidates)}
    without = len(pool.positives)
    for positive_id, mined in itertools.groupby(found, key=lambda one: _id(one.positive.scored)):
        rows = list(mined)  # hardest first, as they are ranked
        taken = [
            *[one for one in rows if one.kept_by != "easy"][: negatives.hard],
            *[one for one in rows if one.kept_by == "easy"][: negatives.easy],
        ]
        counts["negatives_left_out"] += len(rows) - len(taken)
        if not taken:
            continue
        without -= 1
        members = [place[positive_id], *(place[_id(one.negative.scored)] for one in taken)]
        texts = [passage_text(one.title, one.text) for one in (pool.candidates[n] for n in members)]
        yield Group(
            fingerprint(pool.query_id, positive_id)[:16],
            pool.query,
            tuple(texts),
            tuple(pool.tags[n] for n in members),
            tuple(logit for n in members if (logit := logits[n]) is not None),
            min(one.margin for one in taken),
            min(one.negative.rank_before for one in taken),
        )
    counts["groups_without_negatives"] += without


def _id(one: ScoredCandidate) -> str:
    return one.candidate.passage_id
