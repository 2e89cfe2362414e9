"""Whether two systems differ by more than the luck of the queries: paired randomisation tests, corrected by Holm.

A difference of a point or two over forty queries is mostly luck, and of many systems the best is partly the luckiest.
So every figure beside a baseline's carries a p-value, and p-values of one table are corrected for their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import permutation_test

RESAMPLES = 9_999
"""Random sign flips of a test: the smallest p-value is 2 / 10,000."""

LEVEL = 0.05
"""A corrected p-value below this is called significant."""

_CELLS = 1_000_000  # of differences x flips at once: some 30 MB

ByQuery = Mapping[str, float]


class Verdict(NamedTuple):
    """One system beside its baseline, by one measure."""

    change: float  # mean over the queries, the system's minus the baseline's
    p: float  # two-sided, alone
    p_holm: float  # corrected for all tests of the table

    @property
    def significant(self) -> bool:
        return self.p_holm < LEVEL


def sign_flip(differences: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 7) -> float:
    """Two-sided p-value of a mean difference, if each query's could as well have had the other sign.

    Exact where there are at most `resamples` ways of flipping signs, else by that many random ones.

    Args:
        differences: one a query, system minus baseline.
        resamples: random flips.
        seed: of the flips.

    Raises:
        ValueError: a difference that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite, so the systems cannot be compared; measure both again")
    values = values[values != 0]  # a flipped zero stays zero
    if len(values) < 2:
        return 1.0  # none or one: both signs are as far from zero
    found = permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=resamples, rng=seed,
        batch=max(1, _CELLS // len(values)),
    )  # fmt: skip
    return min(1.0, float(found.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: with these, the chance of any false finding stays below the level one tests at."""
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, n in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[n]))
        corrected[n] = highest
    return corrected


def against_baselines(
    values: Mapping[str, Mapping[str, ByQuery]], baselines: Mapping[str, str]
) -> dict[tuple[str, str], Verdict]:
    """Each system of each set beside the set's baseline; p-values are corrected over all of them together.

    Args:
        values: by set, then system, then query_id: one measure. Systems of a set have the same queries.
        baselines: the name of each set's baseline.

    Returns:
        By (set, system), for all but the baselines.
    """
    changes: dict[tuple[str, str], list[float]] = {}
    for name, systems in values.items():
        base = systems[baselines[name]]
        for system, by_query in systems.items():
            if system != baselines[name]:
                assert by_query.keys() == base.keys(), f"{system} and {baselines[name]} have other queries"
                changes[name, system] = [by_query[query] - base[query] for query in base]
    alone = [sign_flip(one) for one in changes.values()]
    return {
        key: Verdict(math.fsum(change) / len(change), p, corrected)
        for (key, change), p, corrected in zip(changes.items(), alone, holm(alone), strict=True)
    }
