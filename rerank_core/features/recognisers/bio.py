"""BIO tags read as sequences: the likeliest one in which no name goes on that did not begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rerank_core.features.recognisers import LABELS

TAGS = ("O", *(f"{place}-{label}" for label in LABELS for place in "BI"))


def best_sequences(answers: Sequence[Any]) -> list[Any]:
    """Indices into TAGS: for each text's [tokens, TAGS] log-odds, its likeliest well-formed sequence (Viterbi).

    A token is O for certain where O is a thousand times as likely as any other tag; what stands between two such is
    searched, all stretches of a call at once.
    """
    if not sum(map(len, answers)):
        return [np.zeros(0, np.int64) for _ in answers]
    scores = np.concatenate(answers)
    open_ = scores[:, 1:].max(axis=1) > scores[:, 0] - np.log(1000)
    begins = open_ & ~np.append(False, open_[:-1])
    firsts = np.cumsum([0, *map(len, answers)])[:-1]
    firsts = firsts[firsts < len(scores)]  # of texts; the last ones may be empty
    begins[firsts] = open_[firsts]  # a stretch ends with its text
    starts = np.flatnonzero(begins)
    number = np.cumsum(begins)[open_] - 1
    lengths = np.bincount(number, minlength=len(starts))
    tags = np.zeros(len(scores), np.int64)
    longest_first = np.argsort(-lengths, kind="stable")
    _fill(tags, scores, starts[longest_first], lengths[longest_first])
    return np.split(tags, np.cumsum([len(answer) for answer in answers])[:-1])


def _fill(tags: Any, scores: Any, starts: Any, lengths: Any) -> None:
    """Write the best sequence of each stretch into `tags`; the stretches come with the longest first."""
    inside = np.arange(2, len(TAGS), 2)  # I- of each label; its B- stands before it
    best = np.empty((len(starts), 0))
    came_from: list[Any] = []
    last = np.zeros(len(starts), np.int64)
    for step in range(lengths[0] if len(lengths) else 0):
        alive = int((lengths > step).sum())
        here = scores[starts[:alive] + step].copy()
        if step == 0:
            here[:, inside] = -np.inf
            source = np.zeros(here.shape, np.int64)
        else:
            last[alive:][: len(best) - alive] = best[alive:].argmax(axis=1)
            best = best[:alive]
            source = np.repeat(best.argmax(axis=1)[:, None], len(TAGS), axis=1)
            source[:, inside] = inside - (best[:, inside - 1] > best[:, inside])
            here += np.take_along_axis(best, source, axis=1)
        best = here
        came_from.append(source)
    last[: len(best)] = best.argmax(axis=1) if best.size else 0
    for step in range(len(came_from) - 1, -1, -1):
        alive = len(came_from[step])
        tags[starts[:alive] + step] = last[:alive]
        last[:alive] = came_from[step][np.arange(alive), last[:alive]]
