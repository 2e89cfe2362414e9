"""The cascade: a cheap score decides which candidates the model need not see.

A candidate is left out if its cheap score lies more than a margin below the tenth best of its query. The margin is
fitted every night on a sample of queries that the model scores in full, by conformal risk control (Angelopoulos et al.
2022, arXiv:2208.02814): for a query drawn like the sample's, the expected loss of nDCG@10 is at most the bound,
however few the sample's queries are. With too few for the bound nothing is left out.

Loss is measured without judgements: the model's own scores of the full list are the gains, so it says how much of the
model's ranking is lost. benchmarks/cascade.py holds that against judgements.
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
"""Places whose order counts: the ten of nDCG@10. So many candidates are always scored."""

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the cheap model in the cheap score that are tried; the rest is BM25's."""

STEPS = 100
"""Margins that are tried: quantiles of the sample's gaps."""

FOLDS = 5
"""Parts of the sample in turns kept from the fit, to measure its loss on."""

MOST = 1.0  # a query cannot lose more than all
ROUNDING = 1e-9
_DISCOUNTS = 1 / np.log2(np.arange(2, DEPTH + 2))


class Fitted(NamedTuple):
    """A rule, and what the sample says of it."""

    rule: Rule
    queries: int  # of the sample
    pruned: float  # share of the sample's candidates that the rule would leave out
    loss: float  # mean loss of nDCG@10, on queries that the fit did not see; 0 to 1
    error: float  # standard error of that mean


def in_sample(query_id: str, *, share: float) -> bool:
    """Whether a query belongs to the sample: those with the lowest ids, which are hashes of their texts."""
    return int(query_id, 16) < share * float(16 ** len(query_id))


def profile(group: RankedGroup, calibration: Calibration = UNCALIBRATED) -> Profile:
    """What fitting needs of a query that was scored in full."""
    scored = sorted((one.scored for one in group.candidates), key=lambda one: one.candidate.passage_id)
    known = [one for one in scored if one.logit is not None]
    documents = {doc_id: n for n, doc_id in enumerate(dict.fromkeys(o.candidate.doc_id for o in known))}
    return Profile(
        group.query.query_id,
        tuple(one.first_stage for one in known),
        tuple(one.candidate.bm25_score for one in known),
        tuple(score for one in known if (score := score_of(one, calibration)) is not None),
        tuple(documents[one.candidate.doc_id] for one in known),
    )


def fit(profiles: Sequence[Profile], *, max_loss: float) -> Fitted:
    """The rule that leaves out most at an expected loss of at most `max_loss`, and its loss on unseen queries.

    Args:
        profiles: of the sample, in any order.
        max_loss: bound on the expected loss of nDCG@10, 0 to 1.
    """
    ordered = sorted(one for one in profiles if one.gains)
    if len(ordered) < fewest_queries(max_loss):
        return Fitted(Rule(1.0, math.inf), len(ordered), 0.0, 0.0, 0.0)
    tried = _try_rules(ordered)
    best = _choose(tried, np.arange(len(ordered)), max_loss=max_loss)
    losses = np.empty(len(ordered))
    for fold in range(FOLDS):
        unseen = np.arange(len(ordered)) % FOLDS == fold
        seen = np.flatnonzero(~unseen)
        # A part has fewer queries than the whole, so its own bound is wider by what that costs.
        wider = max_loss + MOST / (len(seen) + 1) - MOST / (len(ordered) + 1)
        losses[unseen] = tried.losses[unseen, _choose(tried, seen, max_loss=wider)]
    error = float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
    return Fitted(tried.rules[best], len(ordered), float(tried.pruned[best]), float(losses.mean()), error)


def prune(group: QueryGroup, rule: Rule) -> QueryGroup:
    """Mark the candidates that need no model; those that have a logit already, or no cheap score, are kept."""
    cheap = [one.first_stage for one in group.candidates]
    scores = _mixed(cheap, [one.candidate.bm25_score for one in group.candidates], rule.weight)
    gaps = _gaps(scores)
    marked = tuple(
        one._replace(pruned=float(score)) if one.logit is None and gap > rule.margin else one
        for one, score, gap in zip(group.candidates, scores, gaps, strict=True)
    )
    return group._replace(candidates=marked)


def loss_of(one: Profile, rule: Rule) -> float:
    """nDCG@10 that the rule costs a query, the model's scores being the gains: 0 to 1."""
    gaps = _gaps(_mixed(one.cheap, one.bm25, rule.weight))
    return float(_losses(one, gaps, np.array([rule.margin]))[0])


class _Tried(NamedTuple):
    """Rules, the last of which leaves nothing out, and what each does to a sample."""

    rules: list[Rule]
    losses: np.ndarray  # float64 [queries, rules]
    pruned: np.ndarray  # share of the candidates: float64 [rules]


def _try_rules(sample: Sequence[Profile]) -> _Tried:
    rules, losses, pruned = [], [], []
    known = any(score is not None for one in sample for score in one.cheap)
    for weight in WEIGHTS if known else (0.0,):
        gaps = [_gaps(_mixed(one.cheap, one.bm25, weight)) for one in sample]
        every = np.concatenate(gaps)
        margins = np.append(np.quantile(every.clip(0), np.linspace(0, 1, STEPS)), np.inf)
        rules += [Rule(weight, float(margin)) for margin in margins]
        losses.append(np.stack([_losses(one, g, margins) for one, g in zip(sample, gaps, strict=True)]))
        pruned.append(1 - np.searchsorted(np.sort(every), margins, side="right") / len(every))
    return _Tried(rules, np.concatenate(losses, axis=1), np.concatenate(pruned))


def _choose(tried: _Tried, queries: np.ndarray, *, max_loss: float) -> int:
    """The rule that leaves out most of those whose risk on these queries is bounded; by place."""
    risk = (tried.losses[queries].sum(axis=0) + MOST) / (len(queries) + 1)
    return int(np.where(risk <= max_loss + ROUNDING, tried.pruned, -1.0).argmax())


def _mixed(cheap: Sequence[float | None], bm25: Sequence[float], weight: float) -> np.ndarray:
    """The cheap score of each candidate: both scores within the query on one scale, then mixed. nan: unknown."""
    model = np.array([np.nan if score is None else score for score in cheap], np.float64)
    if weight == 0:
        return _standard(np.array(bm25, np.float64))
    if weight == 1:
        return _standard(model)
    return weight * _standard(model) + (1 - weight) * _standard(np.array(bm25, np.float64))


def _standard(scores: np.ndarray) -> np.ndarray:
    known = scores[np.isfinite(scores)]
    spread = known.std() if len(known) else 0.0
    return (scores - known.mean()) / spread if spread > 0 else scores * 0.0


def _gaps(scores: np.ndarray) -> np.ndarray:
    """How far each candidate lies below the tenth best; what has no score is never far. Shape [candidates]."""
    known = np.sort(scores[np.isfinite(scores)])[::-1]
    if len(known) <= DEPTH:
        return np.full(len(scores), -np.inf)
    return np.where(np.isfinite(scores), known[DEPTH - 1] - scores, -np.inf)


def _losses(one: Profile, gaps: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """1 - DCG@10 of what each margin keeps, by that of all: float64 [margins]; falls as margins rise."""
    gains = np.array(one.gains, np.float64)
    by_document = np.argsort(one.documents, kind="stable")
    starts = np.flatnonzero(np.diff(np.array(one.documents)[by_document], prepend=-1))
    kept = gaps[None, :] <= np.append(margins, np.inf)[:, None]
    of_units = (gains * kept)[:, by_document]
    best = np.maximum.reduceat(of_units, starts, axis=1)  # of each document's units
    top = -np.sort(-best, axis=1)[:, :DEPTH]
    dcg = top @ _DISCOUNTS[: top.shape[1]]
    lost: np.ndarray = 1 - dcg[:-1] / dcg[-1] if dcg[-1] > 0 else np.zeros(len(margins))
    return lost


class Rule(NamedTuple):
    """Which candidates the cascade leaves out: see rerank_core.ranking.cascade."""

    weight: float  # of the cheap model in the cheap score, 0 to 1; the rest is BM25's
    margin: float  # below the tenth best cheap score of the query, in standard deviations of the query's candidates


class Profile(NamedTuple):
    """A query of the cascade's sample, scored in full; one value a candidate."""

    query_id: str
    cheap: tuple[float | None, ...]
    bm25: tuple[float, ...]
    gains: tuple[float, ...]  # the model's scores, 0 to 1
    documents: tuple[int, ...]  # number of the document that the unit is of
