"""Fits the weights of `rerank_core.ranking.fusion` on judged questions.

The loss is listwise: each relevant candidate's softmax cross-entropy against all that are not relevant, averaged over
questions and then over sets, so that a large set does not outvote a small one. A ridge penalty pulls the weights
towards the best single score; its strength is chosen by the orders of held-out questions (cross-validation over
FOLDS). If none of them beats the best single score there, that score alone is stored: on these sets fusion is never
worse. Finally the sum is scaled and shifted, also by its list's highest one, so that its sigmoid is a probability
(Platt scaling). How well that holds on text that was not fitted on shows where each set is left out of the fit in turn.

The fit sees true, missing and shuffled tags, since weights fitted on true tags alone would rely on them too much. The
tags' weights are then reduced to the largest share with which no set's MAP falls by more than MAX_GAP on held-out
questions when tags are missing or shuffled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""MAP that a set may lose without tags, or with shuffled ones."""
TAG_SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.0)


class Example(NamedTuple):
    """One question."""

    query_id: str
    items: tuple[str, ...]
    # features with true, no and shuffled tags: float64 [items, FEATURES] each
    variants: tuple[np.ndarray, ...]
    relevant: np.ndarray  # bool [items]


class FitSet(NamedTuple):
    """The questions of one judged set."""

    examples: tuple[Example, ...]
    qrels: Qrels
    min_relevance: int = 1


Means = dict[str, float]


class FusionFit(NamedTuple):
    """Weights, and how well they rank."""

    fusion: Fusion
    ridge: float  # strength of the penalty; inf: the best single score alone
    tag_share: float  # share of the fitted weights of tags that was kept, 0 to 1
    best_single: str
    figures: dict[str, dict[str, Means]]  # by set, then by score; "fused" on held-out questions
    error: dict[str, float]  # expected calibration error of the fused scores by set, 0 to 1
    used: int  # questions that the fit could learn from: with candidates that are relevant and that are not
    left_out: dict[str, Means]  # by set, of a fit on the other sets: measures, and "ece"; {} for a single set


def fit_fusion(sets: Mapping[str, FitSet], *, features: Sequence[str], bi_encoder: str = "") -> FusionFit:
    """Fit weights of `features` on all sets together.

    Args:
        sets: by name.
        features: of FEATURES, "cross_encoder" among them; the others' weights stay 0.
        bi_encoder: its fingerprint, if it is one of the features.

    Raises:
        FusionError: no set has a question to learn from.
    """
    columns = [FEATURES.index(name) for name in features]
    learnable = {name: [e for e in judged.examples if _learnable(e)] for name, judged in sets.items()}
    if not any(learnable.values()):
        raise FusionError(
            "no question has both relevant and irrelevant candidates: there is nothing to fit on; check "
            "--split, --top-k and --min-relevance"
        )
    singles = {name: _single(learnable, name) for name in SINGLE if name in features}
    alone = {name: _measure(sets, [weights] * FOLDS) for name, weights in singles.items()}
    best = max(alone, key=lambda name: _mean(alone[name]))
    spread = _spread(learnable)

    near = functools.partial(_minimise, columns=columns, towards=singles[best])
    shares, orders = {}, {}
    for strength in RIDGES:
        unseen = _unseen(learnable, functools.partial(near, ridge=strength * spread))
        shares[strength] = _tag_share(sets, unseen)
        orders[strength] = _measure(sets, [_with_tags(weights, shares[strength]) for weights in unseen])
    ridge = max(RIDGES, key=lambda strength: (_mean(orders[strength]), strength))
    if _mean(orders[ridge]) > _mean(alone[best]):
        fused, share = orders[ridge], shares[ridge]
        weights = _with_tags(near(learnable, ridge=ridge * spread), share)
    else:
        weights, fused, ridge, share = singles[best], alone[best], float("inf"), 0.0
    figures = {name: {s: alone[s][name] for s in alone} | {FUSED: fused[name]} for name in sets}
    with_cosines = bool(weights[FEATURES.index("bi_encoder")])
    fusion = _calibrated(sets, weights, bi_encoder if with_cosines else "")
    error = {name: _error(judged, fusion) for name, judged in sets.items()}

    def refit(names: Iterable[str]) -> np.ndarray:
        others = {name: learnable[name] for name in names}
        single = _single(others, best)
        if ridge == float("inf"):
            return single
        return _with_tags(_minimise(others, columns, towards=single, ridge=ridge * spread), share)

    left_out = _left_out(sets, refit)
    return FusionFit(fusion, ridge, share, best, figures, error, sum(map(len, learnable.values())), left_out)


def _left_out(sets: Mapping[str, FitSet], refit: Callable[[Iterable[str]], np.ndarray]) -> dict[str, Means]:
    """How each set is ranked and calibrated by a fit on the others."""
    found = {}
    for name, judged in sets.items():
        others = {other: known for other, known in sets.items() if other != name}
        if not any(map(_learnable, (example for known in others.values() for example in known.examples))):
            continue
        weights = refit(others)
        fusion = _calibrated(others, weights, "")
        found[name] = _means(judged, [weights] * FOLDS, 0) | {"ece": _error(judged, fusion)}
    return found


def _learnable(example: Example) -> bool:
    return bool(0 < example.relevant.sum() < len(example.relevant))


def _single(sets: Mapping[str, Sequence[Example]], feature: str) -> np.ndarray:
    """The weights of one score alone, at its best scale."""
    column = FEATURES.index(feature)
    weights = _minimise(sets, [column], towards=np.zeros(len(FEATURES)), ridge=np.full(len(FEATURES), 1e-6))
    # A score that ranks in reverse order keeps its own order all the same.
    weights[column] = max(weights[column], 1e-3)
    return weights


def _spread(sets: Mapping[str, Sequence[Example]]) -> np.ndarray:
    """Variance of each feature within a question, to make the penalty independent of scale: float64 [FEATURES]."""
    every = [example.variants[0].var(axis=0) for examples in sets.values() for example in examples]
    variance: np.ndarray = np.maximum(np.mean(every, axis=0), 1e-9)
    return variance


def _minimise(
    sets: Mapping[str, Sequence[Example]], columns: Sequence[int], *, towards: np.ndarray, ridge: np.ndarray
) -> np.ndarray:
    """The weights of least loss: float64 [FEATURES], 0 outside `columns`."""
    lists = _stacked(sets, columns)
    target, strength = towards[columns], ridge[columns]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _listwise(lists, weights)
        away = weights - target
        return value + float(strength @ away**2), slope + 2 * strength * away

    minimum = minimize(loss, target, jac=True, method="L-BFGS-B")
    weights = np.zeros(len(FEATURES))
    weights[columns] = minimum.x
    return weights


class _Lists(NamedTuple):
    """All lists of candidates, one for each question and variant, concatenated."""

    matrix: np.ndarray  # float64 [rows, columns]
    relevant: np.ndarray  # bool [rows]
    of: np.ndarray  # index of the row's list: int [rows]
    starts: np.ndarray  # index of the list's first row: int [lists]
    weight: np.ndarray  # of a relevant row's loss, by list: float64 [lists]


def _stacked(sets: Mapping[str, Sequence[Example]], columns: Sequence[int]) -> _Lists:
    filled = [examples for examples in sets.values() if examples]
    lists = [
        (
            matrix[:, columns],
            example.relevant,
            1 / (len(example.variants) * len(filled) * len(examples) * example.relevant.sum()),
        )
        for examples in filled
        for example in examples
        for matrix in example.variants
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
    """Weighted cross-entropy of each relevant row against its list's irrelevant ones, and its gradient."""
    sums = lists.matrix @ weights
    powers = np.exp(sums - np.maximum.reduceat(sums, lists.starts)[lists.of])
    others = np.add.reduceat(np.where(lists.relevant, 0.0, powers), lists.starts)[lists.of]
    weight = lists.weight[lists.of]
    # If the powers of the irrelevant rows underflow beside another relevant row's, so may this row's own.
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
    minimise: Callable[[Mapping[str, Sequence[Example]]], np.ndarray],
) -> list[np.ndarray]:
    """The weights for each fold's questions: those fitted on the questions of the other folds."""
    seen = [{n: [e for e in own if _fold(e) != f] for n, own in learnable.items()} for f in range(FOLDS)]
    return [minimise(questions if any(questions.values()) else learnable) for questions in seen]


def _tag_share(sets: Mapping[str, FitSet], weights: Sequence[np.ndarray]) -> float:
    """The largest of TAG_SHARES with which no set loses more than MAX_GAP of MAP without true tags."""
    for share in TAG_SHARES:
        shared = [_with_tags(of_fold, share) for of_fold in weights]
        true, none, shuffled = (_measure(sets, shared, variant=variant) for variant in range(3))
        lost = [true[n]["MAP"] - min(none[n]["MAP"], shuffled[n]["MAP"]) for n in sets]
        if max(lost) <= MAX_GAP:
            return share
    raise AssertionError("without any weight on tags nothing is lost")


def _with_tags(weights: np.ndarray, share: float) -> np.ndarray:
    """The weights, those of tags multiplied by `share`."""
    return weights * [share if name in OF_TAGS else 1.0 for name in FEATURES]


def _measure(sets: Mapping[str, FitSet], weights: Sequence[np.ndarray], variant: int = 0) -> dict[str, Means]:
    """Means of each set, each question ranked by the weights of its fold and in one variant of its tags."""
    return {name: _means(judged, weights, variant) for name, judged in sets.items()}


def _means(judged: FitSet, weights: Sequence[np.ndarray], variant: int) -> Means:
    rankings = {}
    for example in judged.examples:
        sums = example.variants[variant] @ weights[_fold(example)]
        order = sorted(zip((-sums).tolist(), example.items, strict=True))
        rankings[example.query_id] = [item for _, item in order]
    return measures.measure(rankings, judged.qrels, min_relevance=judged.min_relevance)


def _mean(measured: Mapping[str, Means]) -> float:
    return sum(means[CHOSEN_BY] for means in measured.values()) / len(measured)


def _fold(example: Example) -> int:
    return int(fingerprint("fusion", example.query_id)[:8], 16) % FOLDS


def _error(judged: FitSet, fusion: Fusion) -> float:
    """Expected calibration error of a set's pairs."""
    scores: list[float] = []
    relevant: list[bool] = []
    for example in judged.examples:
        scores += expit(fusion.logits(example.variants[0])).tolist()
        relevant += example.relevant.tolist()
    return expected_error(scores, relevant)


def _calibrated(sets: Mapping[str, FitSet], weights: np.ndarray, bi_encoder: str) -> Fusion:
    """The weights on the scale of a logit: the maximum-likelihood line of the sum and of its list's highest one.

    Every set counts equally. Neither slope is below 0, so that a higher sum, and a higher best one, score no less.
    """
    parts = []
    for judged in sets.values():
        lists = [(e.variants[0] @ weights, e.relevant) for e in judged.examples if len(e.items)]
        if lists:
            sums = np.concatenate([own for own, _ in lists])
            tops = np.concatenate([np.full(len(own), own.max()) for own, _ in lists])
            labels = np.concatenate([relevant for _, relevant in lists])
            parts.append((sums - tops, tops, labels, np.full(len(sums), 1 / len(sums))))
    below, tops, labels, share = (np.concatenate(column) for column in zip(*parts, strict=True))

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        logits = line[0] * below + line[1] * tops + line[2]
        wrong = (expit(logits) - labels) * share
        value = float(share @ np.logaddexp(0, np.where(labels, -logits, logits)))
        return value, np.array([wrong @ below, wrong @ tops, wrong.sum()])

    bounds = [(1e-3, None), (0.0, None), (None, None)]
    scale, level, bias = minimize(
        loss, np.array([1.0, 1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds
    ).x
    return Fusion(tuple((scale * weights).tolist()), float(bias), bi_encoder, float(level / scale - 1))
