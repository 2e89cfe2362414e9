"""Hard negatives of a reranked group, each with the rule that kept it; every other candidate with its reason.

The rules and their names are those of sentence-transformers' `mine_hard_negatives`, applied to the
cross-encoder's scores that the night has computed anyway: no embedding model, no second pass.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rerank_core.config.night import Mining
from rerank_core.features.render import passage_text, render
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration, score_of
from rerank_core.text import fingerprint
from schemas.records import HardNegative, RankedCandidate, RankedGroup

OFF = -1.0
"""Value of a margin that rejects nothing."""

# Rules about where the hard ones lie. An easy negative comes from beyond them on purpose; the other rules
# guard against a negative that is in truth a positive, and hold for easy ones too.
_EASY_MAY_BREAK = ("rank_max", "min_score")


class Mined(NamedTuple):
    """What one group gave. For each positive, kept and rejected add up to the group's candidates."""

    negatives: list[HardNegative]
    kept: Counter[str]  # by kept_by: top, random, easy
    # By the first rule that rejected it; no_positive and positive_pruned count the group, once.
    rejected: Counter[str]


class Judge(NamedTuple):
    """A second opinion on a group's units: one too close to a positive is a positive that nobody labelled."""

    scores: Mapping[str, float]  # by passage_id, on any scale
    margin: float  # on that scale


def mine(
    group: RankedGroup,
    positive_ids: frozenset[str],
    *,
    config: Mining,
    label_source: str,
    calibration: Calibration = UNCALIBRATED,
    judge: Judge | None = None,
) -> Mined:
    """Negatives for each positive of the group.

    Every candidate is kept, or counted under the first of these that applies: pruned (the cascade left it out, so
    that it has no score), is_positive, positive_document (another unit of a positive's document), false_negative
    (the judge puts it above the positive less its margin), rank_min, rank_max, max_score, min_score,
    absolute_margin, relative_margin, not_sampled (good, but `num_negatives` were taken). Ranks are those after
    reranking, both ends included; scores are the published ones.

    Args:
        group: ranked and not yet cut: easy negatives come from its lowest third.
        positive_ids: passage_ids of positives, as `labels.positives` gives them.
        config: the rules; `seed` decides random samples and easy negatives, the same on every worker.
        label_source: written into each negative.
        calibration: of the model whose logits these are.
        judge: who says what is a false negative; a night asks nobody.
    """
    ranked = sorted((c for c in group.candidates if c.scored.logit is not None), key=lambda one: one.rank)
    pruned = len(group.candidates) - len(ranked)
    labelled = [one for one in group.candidates if _id(one) in positive_ids]
    positives = [one for one in ranked if _id(one) in positive_ids]
    if not positives:
        return Mined([], Counter(), Counter(["positive_pruned" if labelled else "no_positive"]))
    positive_documents = frozenset(one.scored.candidate.doc_id for one in labelled)
    score = functools.partial(_score, calibration=calibration)
    negatives: list[HardNegative] = []
    kept: Counter[str] = Counter()
    rejected: Counter[str] = Counter({"pruned": pruned * len(positives)} if pruned else {})
    for positive in positives:
        verdicts = [
            _label_rule(one, positive_ids, positive_documents)
            or _judged(one, positive, judge)
            or _rule(one, positive, config, score=score)
            for one in ranked
        ]
        key = (str(config.seed), group.query.query_id, _id(positive))
        for one, (keeper, rule) in zip(
            ranked, _choose(ranked, verdicts, config=config, key=key), strict=True
        ):
            if keeper:
                margin = score(positive) - score(one)
                negatives.append(HardNegative(group.query, positive, one, label_source, keeper, margin))
                kept[keeper] += 1
            else:
                rejected[rule] += 1
    return Mined(negatives, kept, rejected)


def training_pairs(negatives: Sequence[HardNegative], *, tagged: bool) -> list[tuple[str, str, float]]:
    """(query side, passage side, label) of the model's input, tags included if `tagged`.

    Each positive once with label 1, then its negatives with label 0. The order is by query_id, rank of the
    positive and rank of the negative, however `negatives` are ordered. A negative of two positives stands
    under both.
    """
    pairs: list[tuple[str, str, float]] = []
    previous = None
    for one in sorted(negatives, key=lambda n: (n.query.query_id, n.positive.rank, n.negative.rank)):
        if previous != (key := (one.query.query_id, _id(one.positive))):
            pairs.append((*_sides(one, one.positive, tagged=tagged), 1.0))
            previous = key
        pairs.append((*_sides(one, one.negative, tagged=tagged), 0.0))
    return pairs


def _choose(
    ranked: Sequence[RankedCandidate], verdicts: Sequence[str], *, config: Mining, key: tuple[str, ...]
) -> list[tuple[str, str]]:
    """(kept_by, rule) of each candidate, one of the two empty."""
    eligible = [n for n, rule in enumerate(verdicts) if not rule]
    if config.sampling == "random":
        eligible.sort(key=lambda n: fingerprint("random", *key, _id(ranked[n])))
    hard = frozenset(eligible[: config.num_negatives])
    others = [n for n, rule in enumerate(verdicts) if rule not in ("is_positive", "positive_document")]
    lowest = others[len(others) - -(-len(others) // 3) :]  # the third is rounded up
    pool = [n for n in lowest if n not in hard and (not verdicts[n] or verdicts[n] in _EASY_MAY_BREAK)]
    pool.sort(key=lambda n: fingerprint("easy", *key, _id(ranked[n])))
    easy = frozenset(pool[: config.easy_negatives])
    return [
        (config.sampling, "") if n in hard else ("easy", "") if n in easy else ("", rule or "not_sampled")
        for n, rule in enumerate(verdicts)
    ]


def _label_rule(one: RankedCandidate, positive_ids: frozenset[str], documents: frozenset[str]) -> str:
    if _id(one) in positive_ids:
        return "is_positive"
    return "positive_document" if one.scored.candidate.doc_id in documents else ""


def _judged(one: RankedCandidate, positive: RankedCandidate, judge: Judge | None) -> str:
    doubtful = judge and judge.scores[_id(one)] > judge.scores[_id(positive)] - judge.margin
    return "false_negative" if doubtful else ""


def _rule(
    one: RankedCandidate,
    positive: RankedCandidate,
    config: Mining,
    *,
    score: Callable[[RankedCandidate], float],
) -> str:
    """The first rule that rejects a candidate as a hard negative of `positive`; "" if none does."""
    own, best = score(one), score(positive)
    checks = (
        ("rank_min", one.rank < config.rank_min),
        ("rank_max", config.rank_max > 0 and one.rank > config.rank_max),
        ("max_score", own > config.max_score),
        ("min_score", own < config.min_score),
        ("absolute_margin", config.absolute_margin != OFF and best - own < config.absolute_margin),
        ("relative_margin", config.relative_margin != OFF and own > best * (1 - config.relative_margin)),
    )
    return next((name for name, broken in checks if broken), "")


def _sides(one: HardNegative, side: RankedCandidate, *, tagged: bool) -> tuple[str, str]:
    candidate = side.scored.candidate
    tags = side.scored.tags if tagged else None
    rendered = render(one.query.text, passage_text(candidate.title, candidate.text), tags)
    return rendered.query, rendered.passage


def _id(one: RankedCandidate) -> str:
    return one.scored.candidate.passage_id


def _score(one: RankedCandidate, *, calibration: Calibration) -> float:
    score = score_of(one.scored, calibration)
    assert score is not None, f"{_id(one)} is ranked without a logit"
    return score
