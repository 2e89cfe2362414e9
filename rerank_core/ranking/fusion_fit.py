"""Fits the weights of `rerank_core.ranking.fusion` on judged questions.

The loss is listwise: each relevant candidate's softmax cross-entropy against all that are not relevant, averaged over
questions and then over sets, so that a large set does not outvote a small one. Weights are drawn towards the best
single score by a ridge; its strength is the one whose orders are best on questions that the fit did not see. If none of
them beats the best single score there, that score alone is what is stored: fusion is never worse on these sets. At last
the sum is scaled and shifted so that its sigmoid is a probability (Platt).

Tags are seen true, missing and shuffled, or the weights would lean on them as a model does that never saw others. And
they count no more than what can be lost: of their weights the largest share stays with which no set's MAP falls by more
than MAX_GAP, on questions that the fit did not see, when they are missing or shuffled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from rerank_core.errors import FusionError
from rerank_core.evaluation import measures
from rerank_core.evaluation.qrels import Qrels
from rerank_core.ranking.calibration import expected_error
from rerank_core.ranking.fusion import FEATURES, OF_TAGS, SINGLE, Fusion
from rerank_core.text import fingerprint

FOLDS = 5
RIDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
FUSED = "fused"
CHOSEN_BY = "nDCG@10"
MAX_GAP = 0.01
"""Of MAP that a set may lose without tags, or with shuffled ones."""
TAG_SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.0)


class Example(NamedTuple):
    """One question."""

    query_id: str
    items: tuple[str, ...]
    variants: tuple[
        np.ndarray, ...
    ]  # features with true tags, without, shuffled: float64 [items, FEATURES] each
    relevant: np.ndarray  # bool [items]


class FitSet(NamedTuple):
    """The questions of one judged set."""

    examples: tuple[Example, ...]
    qrels: Qrels
    min_relevance: int = 1


Means = dict[str, float]


class Fitted(NamedTuple):
    """Weights, and what they are worth."""

    fusion: Fusion
    ridge: float  # its strength; inf: the best single score alone
    tag_share: float  # what is left of the weights that were found for tags, 0 to 1
    best_single: str
    figures: dict[
        str, dict[str, Means]
    ]  # by set, then by score; "fused" on questions that its fit did not see
    error: dict[str, float]  # expected calibration error of the fused scores by set, 0 to 1
    used: int  # questions that the fit could learn from: with candidates that are relevant and that are not


def fit(sets: Mapping[str, FitSet], *, features: Sequence[str], bi_encoder: str = "") -> Fitted:
    """Fit weights of `features` on all sets together.

    Args:
        sets: by name.
        features: of FEATURES, "cross_encoder" among them; the others' weights stay 0.
        bi_encoder: its fingerprint, if it is among them.

    Raises:
        FusionError: no set has a question to learn from.
    """
    columns = [FEATURES.index(name) for name in features]
    learnable = {name: [e for e in one.examples if _learnable(e)] for name, one in sets.items()}
    if not any(learnable.values()):
        raise FusionError(
            "no question has candidates that are relevant and candidates that are not: there is nothing to fit on"
        )
    singles = {name: _single(learnable, name) for name in SINGLE if name in features}
    worth = {name: _measure(sets, [weights] * FOLDS) for name, weights in singles.items()}
    best = max(worth, key=lambda name: _mean(worth[name]))
    spread = _spread(learnable)

    near = functools.partial(_minimise, columns=columns, towards=singles[best])
    shares, orders = {}, {}
    for strength in RIDGES:
        unseen = _unseen(learnable, functools.partial(near, ridge=strength * spread))
        shares[strength] = _tag_share(sets, unseen)
        orders[strength] = _measure(sets, [_with_tags(one, shares[strength]) for one in unseen])
    ridge = max(RIDGES, key=lambda strength: (_mean(orders[strength]), strength))
    if _mean(orders[ridge]) > _mean(worth[best]):
        found, share = orders[ridge], shares[ridge]
        weights = _with_tags(near(learnable, ridge=ridge * spread), share)
    else:
        weights, found, ridge, share = singles[best], worth[best], float("inf"), 0.0
    scale, bias = _platt(sets, weights)
    told = {name: {s: worth[s][name] for s in worth} | {FUSED: found[name]} for name in sets}
    with_cosines = bool(weights[FEATURES.index("bi_encoder")])
    fusion = Fusion(tuple((scale * weights).tolist()), bias, bi_encoder if with_cosines else "")
    error = {name: _error(one, fusion) for name, one in sets.items()}
    return Fitted(fusion, ridge, share, best, told, error, sum(map(len, learnable.values())))


def _learnable(example: Example) -> bool:
    return bool(0 < example.relevant.sum() < len(example.relevant))


def _single(sets: Mapping[str, Sequence[Example]], feature: str) -> np.ndarray:
    """The weights that take one score alone, at its best scale."""
    column = FEATURES.index(feature)
    weights = _minimise(sets, [column], towards=np.zeros(len(FEATURES)), ridge=np.full(len(FEATURES), 1e-6))
    weights[column] = max(
        weights[column], 1e-3
    )  # a score that ranks the wrong way round is still its own order
    return weights


def _spread(sets: Mapping[str, Sequence[Example]]) -> np.ndarray:
    """Variance of each feature within a question, so that a ridge does not depend on units: float64 [FEATURES]."""
    every = [example.variants[0].var(axis=0) for examples in sets.values() for example in examples]
    variance: np.ndarray = np.maximum(np.mean(every, axis=0), 1e-9)
    return variance


def _minimise(
    sets: Mapping[str, Sequence[Example]], columns: Sequence[int], *, towards: np.ndarray, ridge: np.ndarray
) -> np.ndarray:
    """Weights float64 [FEATURES] of the least loss; 0 outside `columns`."""
    lists = _stacked(sets, columns)
    target, strength = towards[columns], ridge[columns]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _listwise(lists, weights)
        away = weights - target
        return value + float(strength @ away**2), slope + 2 * strength * away

    found = minimize(loss, target, jac=True, method="L-BFGS-B")
    weights = np.zeros(len(FEATURES))
    weights[columns] = found.x
    return weights


class _Lists(NamedTuple):
    """All lists of candidates, one a question and variant, end to end."""

    matrix: np.ndarray  # float64 [rows, columns]
    relevant: np.ndarray  # bool [rows]
    of: np.ndarray  # the row's list: int [rows]
    starts: np.ndarray  # the list's first row: int [lists]
    weight: np.ndarray  # of each relevant row's loss, by list: float64 [lists]


def _stacked(sets: Mapping[str, Sequence[Example]], columns: Sequence[int]) -> _Lists:
    kept = [examples for examples in sets.values() if examples]
    lists = [
        (
            matrix[:, columns],
            one.relevant,
            1 / (len(one.variants) * len(kept) * len(examples) * one.relevant.sum()),
        )
        for examples in kept
        for one in examples
        for matrix in one.variants
    ]
    sizes = [len(relevant) for _, relevant, _ in lists]
    return _Lists(
        np.concatenate([matrix for matrix, _, _ in lists]),
        np.concatenate([relevant for _, relevant, _ in lists]),
        np.repeat(np.arange(len(lists)), sizes),
        np.cumsum([0, *sizes[:-1]]),
        np.array([weight for _, _, weight in lists]),
    )


def _listwise(lists: _Lists, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Cross-entropy of each relevant row among itself and its list's irrelevant ones, weighted, and its slope."""
    sums = lists.matrix @ weights
    powers = np.exp(sums - np.maximum.reduceat(sums, lists.starts)[lists.of])
    others = np.add.reduceat(np.where(lists.relevant, 0.0, powers), lists.starts)[lists.of]
    weight = lists.weight[lists.of]
    # Where all powers of the irrelevant ones vanish beside another relevant row's, so may this row's own.
    whole = np.maximum(powers + others, 1e-300)
    taken = np.where(lists.relevant, weight / whole, 0.0)
    value = float(
        (np.where(lists.relevant, weight, 0.0) * (np.log(whole) - np.log(np.maximum(powers, 1e-300)))).sum()
    )
    pushed = powers * np.add.reduceat(taken, lists.starts)[lists.of]
    steps = np.where(lists.relevant, -taken * others, pushed)
    return value, steps @ lists.matrix


def _unseen(
    learnable: Mapping[str, Sequence[Example]],
    fitted: Callable[[Mapping[str, Sequence[Example]]], np.ndarray],
) -> list[np.ndarray]:
    """The weights for each fold's questions: those fitted on the questions of the others."""
    seen = [{n: [e for e in own if _fold(e) != f] for n, own in learnable.items()} for f in range(FOLDS)]
    return [fitted(questions if any(questions.values()) else learnable) for questions in seen]


def _tag_share(sets: Mapping[str, FitSet], weights: Sequence[np.ndarray]) -> float:
    """The largest of TAG_SHARES with which no set leans on tags by more than MAX_GAP of MAP."""
    for share in TAG_SHARES:
        shared = [_with_tags(one, share) for one in weights]
        true, none, shuffled = (_measure(sets, shared, variant=variant) for variant in range(3))
        lost = [true[n]["MAP"] - min(none[n]["MAP"], shuffled[n]["MAP"]) for n in sets]
        if max(lost) <= MAX_GAP:
            return share
    raise AssertionError("without any weight on tags nothing is lost")


def _with_tags(weights: np.ndarray, share: float) -> np.ndarray:
    """The weights with so much of the tags' own."""
    return weights * [share if name in OF_TAGS else 1.0 for name in FEATURES]


def _measure(sets: Mapping[str, FitSet], weights: Sequence[np.ndarray], variant: int = 0) -> dict[str, Means]:
    """Measures of each set's orders, each question by the weights of its fold and in one variant of its tags."""
    return {name: _means(one, weights, variant) for name, one in sets.items()}


def _means(one: FitSet, weights: Sequence[np.ndarray], variant: int) -> Means:
    run = {}
    for example in one.examples:
        sums = example.variants[variant] @ weights[_fold(example)]
        order = sorted(zip((-sums).tolist(), example.items, strict=True))
        run[example.query_id] = {item: -float(place) for place, (_, item) in enumerate(order)}
    return measures.measure(run, one.qrels, min_relevance=one.min_relevance)


def _mean(measured: Mapping[str, Means]) -> float:
    return sum(means[CHOSEN_BY] for means in measured.values()) / len(measured)


def _fold(example: Example) -> int:
    return int(fingerprint("fusion", example.query_id)[:8], 16) % FOLDS


def _error(one: FitSet, fusion: Fusion) -> float:
    """Of a fit that has seen these pairs; but it has one scale and one shift for thousands of them."""
    pairs = [
        (float(said), bool(relevant))
        for e in one.examples
        for said, relevant in zip(
            expit(e.variants[0] @ np.array(fusion.weights) + fusion.bias), e.relevant, strict=True
        )
    ]
    return expected_error([said for said, _ in pairs], [relevant for _, relevant in pairs])


def _platt(sets: Mapping[str, FitSet], weights: np.ndarray) -> tuple[float, float]:
    """(scale, bias) under which the sum's sigmoid is likeliest, every set counting alike; the scale is above 0."""
    parts = []
    for one in sets.values():
        sums = np.concatenate([e.variants[0] @ weights for e in one.examples] or [np.zeros(0)])
        labels = np.concatenate([e.relevant for e in one.examples] or [np.zeros(0, bool)])
        if len(sums):
            parts.append((sums, labels, np.full(len(sums), 1 / len(sums))))
    sums, labels, share = (np.concatenate(column) for column in zip(*parts, strict=True))

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        logits = line[0] * sums + line[1]
        wrong = (expit(logits) - labels) * share
        value = float(share @ np.logaddexp(0, np.where(labels, -logits, logits)))
        return value, np.array([wrong @ sums, wrong.sum()])

    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, None), (None, None)]
    )
    return float(found.x[0]), float(found.x[1])
