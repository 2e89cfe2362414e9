"""BIO tags decoded as sequences: the likeliest one in which every I- follows its B- or I-."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rerank_core.features.ner import LABELS

TAGS = ("O", *(f"{prefix}-{label}" for label in LABELS for prefix in "BI"))

ALLOWED = np.array([[0.0 if b[0] != "I" or a[2:] == b[2:] else -np.inf for b in TAGS] for a in TAGS])
"""Log-odds [first tag, next tag]: 0 where the next may follow the first. A text begins as if after an O."""

CERTAIN = float(np.log(1000))


def best_sequences(answers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each text the likeliest well-formed sequence of tags (Viterbi), as int64 indices into TAGS.

    A token is taken as O where O is a thousand times as likely as any other tag; the stretches between such tokens are
    searched, all of a call at once.

    Args:
        answers: each text's log-odds, float [tokens, TAGS].
    """
    if not sum(map(len, answers)):
        return [np.zeros(0, np.int64) for _ in answers]
    scores = np.concatenate(answers).astype(np.float64)
    ends = np.cumsum([len(answer) for answer in answers])  # of texts
    open_ = scores[:, 1:].max(axis=1) > scores[:, 0] - CERTAIN
    begins = open_ & ~np.append(False, open_[:-1])
    others = ends[ends < len(scores)]
    begins[others] = open_[others]  # a stretch ends with its text
    starts = np.flatnonzero(begins)
    lengths = np.bincount(np.cumsum(begins)[open_] - 1, minlength=len(starts))
    longest_first = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[longest_first], lengths[longest_first]
    tags = np.zeros(len(scores), np.int64)
    _fill(tags, scores, starts, lengths)
    return list(np.split(tags, ends[:-1]))


def _fill(tags: np.ndarray, scores: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Write the best sequence of each stretch into `tags`; the stretches come with the longest first."""
    came_from: list[np.ndarray] = []
    best = np.full((len(starts), len(TAGS)), -np.inf)
    best[:, 0] = 0.0  # each follows an O
    last = np.zeros(len(starts), np.int64)
    for step in range(lengths[0] if len(lengths) else 0):
        alive = int((lengths > step).sum())
        last[alive : len(best)] = best[alive:].argmax(axis=1)
        ways = best[:alive, :, None] + ALLOWED
        came_from.append(ways.argmax(axis=1))
        best = ways.max(axis=1) + scores[starts[:alive] + step]
    last[: len(best)] = best.argmax(axis=1)
    for step in range(len(came_from) - 1, -1, -1):
        alive = len(came_from[step])
        tags[starts[:alive] + step] = last[:alive]
        last[:alive] = came_from[step][np.arange(alive), last[:alive]]
