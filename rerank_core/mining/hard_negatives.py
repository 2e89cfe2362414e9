"""Hard negatives of a reranked group, each with the rule that kept it; every other candidate with the rule against it.

The rules and their names are those of sentence-transformers' `mine_hard_negatives`, applied to the
cross-encoder's scores that the night has computed anyway: no embedding model, no second pass.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from rerank_core.config.labels import Mining
from rerank_core.features.render import passage_text, render
from rerank_core.mining.copies import Copies
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration, score_of
from rerank_core.text import fingerprint
from schemas.records import Candidate, HardNegative, RankedCandidate, RankedGroup

OFF = -1.0
"""Value of a margin that is not applied."""

# These rules exclude candidates that are too easy, so easy negatives are exempt from them. The other rules guard
# against false negatives and apply to easy ones too.
_EASY_MAY_BREAK = ("rank_max", "min_score")
# Rules by which a candidate is a positive, or says what one says.
_POSITIVE = ("is_positive", "positive_document", "positive_copy", "near_copy")


NONE_DOUBTFUL: Mapping[str, str] = MappingProxyType({})


class Mined(NamedTuple):
    """The negatives of one group. For each positive, kept and rejected add up to the group's candidates."""

    negatives: list[HardNegative]
    # by kept_by: top, random, easy
    kept: Counter[str]
    # by the first rule that rejected it; no_positive and positive_pruned count the group, once
    rejected: Counter[str]


class Judge(NamedTuple):
    """Scores for finding false negatives: a candidate too close to a positive is probably relevant but not labelled."""

    scores: Mapping[str, float]  # by passage_id, on any scale
    margin: float  # on that scale


def mine(
    group: RankedGroup,
    positive_ids: frozenset[str],
    *,
    config: Mining,
    label_source: str,
    doubtful: Mapping[str, str] = NONE_DOUBTFUL,
    calibration: Calibration = UNCALIBRATED,
    judge: Judge | None = None,
) -> Mined:
    """Negatives for each positive of the group.

    Every candidate is kept, or counted under the first rule that rejects it: pruned (the cascade left it out, so it
    has no score), is_positive, positive_document (another unit of a positive's document), a rule of `doubtful`,
    false_negative (the judge's score exceeds the positive's minus the margin), rank_min, rank_max, max_score,
    min_score, absolute_margin, relative_margin, not_sampled (good, but `num_negatives` were taken). Ranks are those
    after reranking, both ends included; scores are the published ones.

    Args:
        group: ranked and not yet cut: easy negatives come from its lowest third.
        positive_ids: passage_ids of positives, as `labels.positives` returns them.
        config: the rules; random samples and easy negatives depend on `seed` alone, the same on every worker.
        label_source: written into each negative.
        doubtful: rules by passage_id of candidates that may be relevant, as `labels.doubtful` returns them.
        calibration: that of the model of the logits.
        judge: scores for finding false negatives; a night has none.
    """
    ranked = sorted((c for c in group.candidates if c.scored.logit is not None), key=lambda c: c.rank)
    pruned = len(group.candidates) - len(ranked)
    labelled = [c for c in group.candidates if _id(c) in positive_ids]
    positives = [c for c in ranked if _id(c) in positive_ids]
    if not positives:
        return Mined([], Counter(), Counter(["positive_pruned" if labelled else "no_positive"]))
    labels = _label_rules(group, positive_ids, near=config.near_copies)
    score = functools.partial(_score, calibration=calibration)
    negatives: list[HardNegative] = []
    kept: Counter[str] = Counter()
    rejected: Counter[str] = Counter({"pruned": pruned * len(positives)} if pruned else {})
    for positive in positives:
        verdicts = [
            labels[_id(candidate)]
            or doubtful.get(_id(candidate), "")
            or _judged(candidate, positive, judge)
            or _rule(candidate, positive, config, score=score)
            for candidate in ranked
        ]
        key = (str(config.seed), group.query.query_id, _id(positive))
        chosen = _choose(ranked, verdicts, config=config, key=key)
        for candidate, (kept_by, rule) in zip(ranked, chosen, strict=True):
            if kept_by:
                margin = score(positive) - score(candidate)
                negatives.append(
                    HardNegative(group.query, positive, candidate, label_source, kept_by, margin)
                )
                kept[kept_by] += 1
            else:
                rejected[rule] += 1
    return Mined(negatives, kept, rejected)


def training_pairs(negatives: Sequence[HardNegative], *, tagged: bool) -> list[tuple[str, str, float]]:
    """(query side, passage side, label) of the model's input, with tags if `tagged`.

    Each positive once with label 1, then its negatives with label 0, sorted by query_id, rank of the positive and rank
    of the negative. A negative of two positives occurs under both.
    """
    pairs: list[tuple[str, str, float]] = []
    previous = None
    for mined in sorted(negatives, key=lambda n: (n.query.query_id, n.positive.rank, n.negative.rank)):
        if previous != (key := (mined.query.query_id, _id(mined.positive))):
            pairs.append((*_sides(mined, mined.positive, tagged=tagged), 1.0))
            previous = key
        pairs.append((*_sides(mined, mined.negative, tagged=tagged), 0.0))
    return pairs


def _choose(
    ranked: Sequence[RankedCandidate], verdicts: Sequence[str], *, config: Mining, key: tuple[str, ...]
) -> list[tuple[str, str]]:
    """(kept_by, rule against it) of each candidate; one of the two is empty."""
    eligible = [n for n, rule in enumerate(verdicts) if not rule]
    if config.sampling == "random":
        eligible.sort(key=lambda n: fingerprint("random", *key, _id(ranked[n])))
    hard = frozenset(eligible[: config.num_negatives])
    others = [n for n, rule in enumerate(verdicts) if rule not in _POSITIVE]
    lowest = others[len(others) - -(-len(others) // 3) :]  # the third is rounded up
    pool = [n for n in lowest if n not in hard and (not verdicts[n] or verdicts[n] in _EASY_MAY_BREAK)]
    pool.sort(key=lambda n: fingerprint("easy", *key, _id(ranked[n])))
    easy = frozenset(pool[: config.easy_negatives])
    return [
        (config.sampling, "") if n in hard else ("easy", "") if n in easy else ("", rule or "not_sampled")
        for n, rule in enumerate(verdicts)
    ]


def _label_rules(group: RankedGroup, positive_ids: frozenset[str], *, near: float) -> dict[str, str]:
    """The rule of _POSITIVE that holds for each candidate, by passage_id; "" where none does."""
    candidates = [ranked.scored.candidate for ranked in group.candidates]
    documents = frozenset(c.doc_id for c in candidates if c.passage_id in positive_ids)
    # All units of a positive's document: a copy of the document has them all, too.
    copies = Copies(((c.title, c.text) for c in candidates if c.doc_id in documents), near=near)

    def rule(candidate: Candidate) -> str:
        if candidate.passage_id in positive_ids:
            return "is_positive"
        return (
            "positive_document"
            if candidate.doc_id in documents
            else copies.rule(candidate.title, candidate.text)
        )

    return {candidate.passage_id: rule(candidate) for candidate in candidates}


def _judged(candidate: RankedCandidate, positive: RankedCandidate, judge: Judge | None) -> str:
    doubtful = judge and judge.scores[_id(candidate)] > judge.scores[_id(positive)] - judge.margin
    return "false_negative" if doubtful else ""


def _rule(
    candidate: RankedCandidate,
    positive: RankedCandidate,
    config: Mining,
    *,
    score: Callable[[RankedCandidate], float],
) -> str:
    """The first rule that rejects a candidate as a hard negative of `positive`; "" if none does."""
    own, best = score(candidate), score(positive)
    checks = (
        ("rank_min", candidate.rank < config.rank_min),
        ("rank_max", config.rank_max > 0 and candidate.rank > config.rank_max),
        ("max_score", own > config.max_score),
        ("min_score", own < config.min_score),
        ("absolute_margin", config.absolute_margin != OFF and best - own < config.absolute_margin),
        ("relative_margin", config.relative_margin != OFF and own > best * (1 - config.relative_margin)),
    )
    return next((name for name, broken in checks if broken), "")


def _sides(mined: HardNegative, side: RankedCandidate, *, tagged: bool) -> tuple[str, str]:
    candidate = side.scored.candidate
    tags = side.scored.tags if tagged else None
    rendered = render(mined.query.text, passage_text(candidate.title, candidate.text), tags)
    return rendered.query, rendered.passage


def _id(candidate: RankedCandidate) -> str:
    return candidate.scored.candidate.passage_id


def _score(candidate: RankedCandidate, *, calibration: Calibration) -> float:
    score = score_of(candidate.scored, calibration)
    assert score is not None, f"{_id(candidate)} is ranked without a logit"
    return score
