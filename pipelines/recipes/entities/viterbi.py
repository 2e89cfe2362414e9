"""Tags that follow from each other: what a sentence's words say one by one, read as one sequence.

A tagger that judges each word by itself says "North/ORG Sea/ORG Jazz/MISC Festival/MISC" where it is torn; read as a
sequence, that is one name with one label. On the teacher this is worth four points of F1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rerank_core.features.ner.bio import TAGS


def well_formed(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags with every I- that continues nothing of its label turned into B-."""
    fixed: list[str] = []
    for tag in tags:
        if tag.startswith("I-") and (not fixed or fixed[-1][2:] != tag[2:]):
            tag = "B" + tag[1:]
        fixed.append(tag)
    return tuple(fixed)


def spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """(first word, word after the last, label) of each entity of well-formed BIO tags."""
    found: list[tuple[int, int, str]] = []
    for at, tag in enumerate(tags):
        if tag.startswith("B-"):
            found.append((at, at + 1, tag[2:]))
        elif tag.startswith("I-"):
            found[-1] = (found[-1][0], at + 1, tag[2:])
    return found


def transitions(sentences: Iterable[Sequence[str]]) -> np.ndarray:
    """How much likelier than by chance each tag follows each other: float64 [TAGS, TAGS], 0 where none may.

    The root of the ratio is taken: the words' own probabilities know half of it already.
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
        p: of each word by itself, [words, TAGS]; a row of zeros is a word of which nothing is known.
        follows: as `transitions` gives it.
    """
    given = np.where(p.sum(axis=1, keepdims=True) > 0, p, 1.0).astype(np.float64) + 1e-12
    ahead, behind = np.empty_like(given), np.ones_like(given)
    before = follows[0]  # a sentence begins as if after an O
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
