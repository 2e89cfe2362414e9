"""The cascade: a first-stage score decides which candidates the cross-encoder need not score.

A candidate is pruned if its first-stage score lies more than a margin below the tenth best of its query. The margin is
fitted every night on a sample of queries that the model scores in full, by conformal risk control (Angelopoulos et al.
2022, arXiv:2208.02814): for a query drawn like the sample's, the expected loss of nDCG@10 is at most the bound,
however few the sample's queries are. If there are too few for the bound, nothing is pruned.

Loss is measured without judgements: the model's own scores of the full list are the gains, so it says how much of the
model's ranking is lost. benchmarks/cascade.py compares that with the loss by judgements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rerank_core.config.night import fewest_queries
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration, score_of
from schemas.records import QueryGroup, RankedGroup

DEPTH = 10
"""Cutoff of the nDCG whose loss is bounded. At least so many candidates of a query are always scored."""

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the first-stage model in the first-stage score that are tried; the rest is BM25's."""

STEPS = 100
"""Margins that are tried: quantiles of the sample's gaps."""

FOLDS = 5
"""Folds of the cross-validation that estimates the loss."""

MOST = 1.0  # the largest possible loss of a query
ROUNDING = 1e-9
_DISCOUNTS = 1 / np.log2(np.arange(2, DEPTH + 2))


class CascadeRule(NamedTuple):
    """Which candidates the cascade prunes."""

    weight: float  # of the first-stage model in the first-stage score, 0 to 1; the rest is BM25's
    margin: float  # below the query's tenth best first-stage score, in standard deviations of the query's candidates


class CascadeProfile(NamedTuple):
    """A query of the cascade's sample, scored in full; one value a candidate."""

    query_id: str
    first_stage: tuple[float | None, ...]  # the first-stage model's scores
    bm25: tuple[float, ...]
    gains: tuple[float, ...]  # the cross-encoder's scores, 0 to 1
    documents: tuple[int, ...]  # number of the unit's document


class CascadeFit(NamedTuple):
    """A rule, and what it does on the sample."""

    rule: CascadeRule
    queries: int  # of the sample
    pruned: float  # share of the sample's candidates that the rule prunes
    loss: float  # mean loss of nDCG@10 by cross-validation, 0 to 1
    error: float  # standard error of that mean


def in_sample(query_id: str, *, share: float) -> bool:
    """Whether a query belongs to the sample: those with the lowest ids, which are hashes of their texts."""
    return int(query_id, 16) < share * float(16 ** len(query_id))


def profile_of(group: RankedGroup, calibration: Calibration = UNCALIBRATED) -> CascadeProfile:
    """What fitting needs of a query that was scored in full."""
    candidates = sorted((c.scored for c in group.candidates), key=lambda c: c.candidate.passage_id)
    scored = [c for c in candidates if c.logit is not None]
    documents = {doc_id: n for n, doc_id in enumerate(dict.fromkeys(c.candidate.doc_id for c in scored))}
    return CascadeProfile(
        group.query.query_id,
        tuple(c.first_stage for c in scored),
        tuple(c.candidate.bm25_score for c in scored),
        tuple(score for c in scored if (score := score_of(c, calibration)) is not None),
        tuple(documents[c.candidate.doc_id] for c in scored),
    )


def fit_cascade(profiles: Sequence[CascadeProfile], *, max_loss: float) -> CascadeFit:
    """The rule that prunes most at an expected loss of at most `max_loss`, and its cross-validated loss.

    Args:
        profiles: of the sample, in any order.
        max_loss: bound on the expected loss of nDCG@10, 0 to 1.
    """
    sample = sorted(profile for profile in profiles if profile.gains)
    if len(sample) < fewest_queries(max_loss):
        return CascadeFit(CascadeRule(1.0, math.inf), len(sample), 0.0, 0.0, 0.0)
    tried = _try_rules(sample)
    best = _choose(tried, np.arange(len(sample)), max_loss=max_loss)
    losses = np.empty(len(sample))
    for fold in range(FOLDS):
        unseen = np.arange(len(sample)) % FOLDS == fold
        seen = np.flatnonzero(~unseen)
        # A part has fewer queries than the whole, so its own bound is wider by what that costs.
        wider = max_loss + MOST / (len(seen) + 1) - MOST / (len(sample) + 1)
        losses[unseen] = tried.losses[unseen, _choose(tried, seen, max_loss=wider)]
    error = float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
    return CascadeFit(tried.rules[best], len(sample), float(tried.pruned[best]), float(losses.mean()), error)


def prune(group: QueryGroup, rule: CascadeRule) -> QueryGroup:
    """Mark the candidates to be pruned; those that have a logit already, or no first-stage score, stay."""
    first_stage = [c.first_stage for c in group.candidates]
    scores = _mixed(first_stage, [c.candidate.bm25_score for c in group.candidates], rule.weight)
    gaps = _gaps(scores)
    marked = tuple(
        c._replace(pruned=float(score)) if c.logit is None and gap > rule.margin else c
        for c, score, gap in zip(group.candidates, scores, gaps, strict=True)
    )
    return group._replace(candidates=marked)


def loss_of(profile: CascadeProfile, rule: CascadeRule) -> float:
    """nDCG@10 that the rule costs a query, the model's scores being the gains: 0 to 1."""
    gaps = _gaps(_mixed(profile.first_stage, profile.bm25, rule.weight))
    return float(_losses(profile, gaps, np.array([rule.margin]))[0])


class _Tried(NamedTuple):
    """Rules, the last of which prunes nothing, and what each does to a sample."""

    rules: list[CascadeRule]
    losses: np.ndarray  # float64 [queries, rules]
    pruned: np.ndarray  # share of the candidates: float64 [rules]


def _try_rules(sample: Sequence[CascadeProfile]) -> _Tried:
    rules, losses, pruned = [], [], []
    has_model = any(score is not None for profile in sample for score in profile.first_stage)
    for weight in WEIGHTS if has_model else (0.0,):
        gaps = [_gaps(_mixed(profile.first_stage, profile.bm25, weight)) for profile in sample]
        every = np.concatenate(gaps)
        margins = np.append(np.quantile(every.clip(0), np.linspace(0, 1, STEPS)), np.inf)
        rules += [CascadeRule(weight, float(margin)) for margin in margins]
        losses.append(np.stack([_losses(p, g, margins) for p, g in zip(sample, gaps, strict=True)]))
        pruned.append(1 - np.searchsorted(np.sort(every), margins, side="right") / len(every))
    return _Tried(rules, np.concatenate(losses, axis=1), np.concatenate(pruned))


def _choose(tried: _Tried, queries: np.ndarray, *, max_loss: float) -> int:
    """Index of the rule that prunes most among those whose risk on these queries is bounded."""
    risk = (tried.losses[queries].sum(axis=0) + MOST) / (len(queries) + 1)
    return int(np.where(risk <= max_loss + ROUNDING, tried.pruned, -1.0).argmax())


def _mixed(first_stage: Sequence[float | None], bm25: Sequence[float], weight: float) -> np.ndarray:
    """The first-stage score of each candidate: both scores standardised within the query, then mixed; nan: unknown."""
    model = np.array([np.nan if score is None else score for score in first_stage], np.float64)
    if weight == 0:
        return _standardised(np.array(bm25, np.float64))
    if weight == 1:
        return _standardised(model)
    return weight * _standardised(model) + (1 - weight) * _standardised(np.array(bm25, np.float64))


def _standardised(scores: np.ndarray) -> np.ndarray:
    known = scores[np.isfinite(scores)]
    spread = known.std() if len(known) else 0.0
    return (scores - known.mean()) / spread if spread > 0 else scores * 0.0


def _gaps(scores: np.ndarray) -> np.ndarray:
    """How far each candidate lies below the tenth best: float64 [candidates]; -inf for one without a score."""
    known = np.sort(scores[np.isfinite(scores)])[::-1]
    if len(known) <= DEPTH:
        return np.full(len(scores), -np.inf)
    return np.where(np.isfinite(scores), known[DEPTH - 1] - scores, -np.inf)


def _losses(profile: CascadeProfile, gaps: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """1 - DCG@10 of what each margin keeps, relative to that of all: float64 [margins]; falls as margins rise."""
    gains = np.array(profile.gains, np.float64)
    by_document = np.argsort(profile.documents, kind="stable")
    starts = np.flatnonzero(np.diff(np.array(profile.documents)[by_document], prepend=-1))
    kept = gaps[None, :] <= np.append(margins, np.inf)[:, None]
    of_units = (gains * kept)[:, by_document]
    best = np.maximum.reduceat(of_units, starts, axis=1)  # of each document's units
    top = -np.sort(-best, axis=1)[:, :DEPTH]
    dcg = top @ _DISCOUNTS[: top.shape[1]]
    lost: np.ndarray = 1 - dcg[:-1] / dcg[-1] if dcg[-1] > 0 else np.zeros(len(margins))
    return lost
