"""The order in which a stage sees its examples, drawn beforehand from the seed and the examples' keys alone.

So it does not depend on the order of files, and a killed training resumes exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise as neighbours
from typing import NamedTuple

import numpy as np

from rerank_core.training.groups import Facts

PHASES = 20
"""Steps per epoch in which the preference for hard examples grows."""

PREFERENCE = 4.0
"""At a stage's start the easiest example is PREFERENCE squared times as likely as the hardest; at its end, the
reverse."""


class Schedule(NamedTuple):
    """The examples of a stage in order, one entry each."""

    source: np.ndarray  # int32: number of the file of groups; 0 is the stage's own
    group: np.ndarray  # int32: number of the group in that file
    member: np.ndarray  # int32: the group's passage that makes the pair; -1 for the whole group
    epoch: np.ndarray  # int32, from 0
    unseen: int  # number of the stage's own examples that are never drawn

    @property
    def rows(self) -> int:
        return len(self.group)


def schedule(
    own: Facts,
    earlier: Sequence[Facts],
    *,
    pairwise: bool,
    epochs: int,
    growing: bool = False,
    replay: float = 0.0,
    seed: int,
) -> Schedule:
    """The examples of all epochs.

    Args:
        own: the stage's groups.
        earlier: those of the stages before it, for replay.
        pairwise: an example is one pair of a group, not the whole group.
        epochs: each has as many of the stage's own examples as there are.
        growing: draw examples by difficulty, easy ones first; else each occurs once per epoch.
        replay: share of an epoch that is drawn from `earlier`.
        seed: of everything random.
    """
    generator = np.random.default_rng(seed)
    units = _units(own, source=0, pairwise=pairwise)
    older = [_units(facts, source=n, pairwise=pairwise) for n, facts in enumerate(earlier, start=1)]
    pool = np.concatenate([np.empty((0, 3), np.int32), *older])
    hardness = _hardness(own)[units[:, 1]] if growing else None
    replayed = round(len(units) * replay / (1 - replay)) if len(pool) else 0
    drawn, parts = np.zeros(len(units), bool), []
    for epoch in range(epochs):
        order = (
            generator.permutation(len(units))
            if hardness is None
            else _draw(hardness, epoch=epoch, epochs=epochs, generator=generator)
        )
        drawn[order] = True
        again = (
            pool[generator.choice(len(pool), replayed, replace=replayed > len(pool))]
            if replayed
            else pool[:0]
        )
        parts.append(_interleave(units[order], again, generator))
    rows = np.concatenate(parts)
    epoch_of = np.repeat(np.arange(epochs, dtype=np.int32), len(units) + replayed)
    return Schedule(rows[:, 0], rows[:, 1], rows[:, 2], epoch_of, int((~drawn).sum()))


def _units(facts: Facts, *, source: int, pairwise: bool) -> np.ndarray:
    """(source, group, member) of every example, in the order of the groups' keys: int32 [examples, 3]."""
    groups = np.argsort(facts.keys, kind="stable").astype(np.int32)
    if pairwise:
        sizes = facts.sizes[groups]
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        members = (np.arange(sizes.sum()) - starts).astype(np.int32)
        groups = np.repeat(groups, sizes)
    else:
        members = np.full(len(groups), -1, np.int32)
    return np.column_stack([np.full(len(groups), source, np.int32), groups, members])


def _hardness(facts: Facts) -> np.ndarray:
    """Normalised rank of each group by difficulty, 0 the easiest and 1 the hardest: float64 [groups].

    A smaller margin is harder; of equal margins, a negative with a better BM25 rank.
    """
    order = np.lexsort((facts.keys, -facts.ranks, -facts.margins))
    ranks = np.empty(len(order))
    ranks[order] = np.arange(len(order)) / max(1, len(order) - 1)
    return ranks


def _draw(hardness: np.ndarray, *, epoch: int, epochs: int, generator: np.random.Generator) -> np.ndarray:
    """As many numbers as there are examples; the preference moves from easy to hard over the stage."""
    bounds = np.linspace(0, len(hardness), PHASES + 1).astype(int)
    parts = []
    for phase, (start, end) in enumerate(neighbours(bounds)):
        done = (epoch + (phase + 0.5) / PHASES) / epochs
        weights = PREFERENCE ** ((2 * done - 1) * (2 * hardness - 1))
        parts.append(generator.choice(len(hardness), end - start, p=weights / weights.sum()))
    return np.concatenate(parts)


def _interleave(first: np.ndarray, second: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Both, mixed at random, each in its own order."""
    mixed = np.empty((len(first) + len(second), 3), np.int32)
    of_second = np.zeros(len(mixed), bool)
    of_second[generator.choice(len(mixed), len(second), replace=False)] = True
    mixed[~of_second], mixed[of_second] = first, second
    return mixed
