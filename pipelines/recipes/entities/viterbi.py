"""Sequence decoding: the probabilities of a sentence's words are combined with transitions between tags.

A tagger that predicts each word independently may say "North/ORG Sea/ORG Jazz/MISC Festival/MISC"; decoded as a
sequence, that is one name with one label. For the teacher this is worth four points of F1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rerank_core.features.ner.bio import TAGS


def well_formed(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags with every I- that does not continue an entity of its label changed to B-."""
    fixed: list[str] = []
    for tag in tags:
        if tag.startswith("I-") and (not fixed or fixed[-1][2:] != tag[2:]):
            tag = "B" + tag[1:]
        fixed.append(tag)
    return tuple(fixed)


def spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """(first word, word after the last, label) of each entity of well-formed BIO tags."""
    entities: list[tuple[int, int, str]] = []
    for at, tag in enumerate(tags):
        if tag.startswith("B-"):
            entities.append((at, at + 1, tag[2:]))
        elif tag.startswith("I-"):
            entities[-1] = (entities[-1][0], at + 1, tag[2:])
    return entities


def transitions(sentences: Iterable[Sequence[str]]) -> np.ndarray:
    """Square root of p(tag | previous tag) / p(tag): float64 [previous, tag], 0 for impossible transitions.

    The square root, since the words' own probabilities contain half of this information.
    """
    counts = np.full((len(TAGS), len(TAGS)), 0.5)
    for tags in map(well_formed, sentences):
        for before, after in zip(("O", *tags), tags, strict=False):
            counts[TAGS.index(before), TAGS.index(after)] += 1
    ratio = counts / counts.sum(axis=1, keepdims=True) / (counts.sum(axis=0) / counts.sum())
    allowed = [[not b.startswith("I-") or a[2:] == b[2:] for b in TAGS] for a in TAGS]
    return np.where(allowed, np.sqrt(ratio), 0.0)


def marginals(p: np.ndarray, follows: np.ndarray) -> np.ndarray:
    """p(tag) of each word of a sentence given all of it: float32 [words, TAGS], by forward-backward.

    Args:
        p: of each word independently, [words, TAGS]; a row of zeros for an unknown word.
        follows: as `transitions` returns it.
    """
    given = np.where(p.sum(axis=1, keepdims=True) > 0, p, 1.0).astype(np.float64) + 1e-12
    ahead, behind = np.empty_like(given), np.ones_like(given)
    before = follows[0]  # a sentence starts as after an O
    for at, row in enumerate(given):
        ahead[at] = row * before
        ahead[at] /= ahead[at].sum()
        before = ahead[at] @ follows
    for at in range(len(given) - 2, -1, -1):
        behind[at] = follows @ (given[at + 1] * behind[at + 1])
        behind[at] /= behind[at].sum()
    joint = ahead * behind
    result: np.ndarray = (joint / joint.sum(axis=1, keepdims=True)).astype(np.float32)
    result[p.sum(axis=1) == 0] = 0.0
    return result
