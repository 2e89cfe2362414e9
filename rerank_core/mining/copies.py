"""Copies of positives: passages that say what a positive says, under another id, and so are no negatives.

A corpus often holds one text several times: versions of a page, syndicated articles, overlapping chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rerank_core.features.render import escape, passage_text
from rerank_core.text import fold, normalise_query

_SHINGLE = 3  # words
_FEWEST_SHINGLES = (
    8  # of a text of fewer than ten words, one that merely mentions it would hold every shingle
)
# Scripts without spaces between words, which are compared by character: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")

Shingles = frozenset[tuple[str, ...]]


class Copies:
    """The passages of a query that its positives are compared by.

    Args:
        passages: (title, text) of each.
        near: the share of a positive's shingles from which a passage that holds them is a near copy; 0 turns the rule
            off, and leaves exact copies.
    """

    def __init__(self, passages: Iterable[tuple[str, str]], *, near: float) -> None:
        passages = list(passages)
        self._near = near
        self._texts = frozenset(key for passage in passages for key in _keys(*passage))
        of_each = {shingles(passage_text(*passage)) for passage in passages} if near else ()
        self._shingles = [each for each in of_each if len(each) >= _FEWEST_SHINGLES]

    def rule(self, title: str, text: str) -> str:
        """Why this passage is no negative: "positive_copy", "near_copy", or "" if it is none of these."""
        if not self._texts.isdisjoint(_keys(title, text)):
            return "positive_copy"
        if not self._shingles:
            return ""
        own = shingles(passage_text(title, text))
        return (
            "near_copy" if any(len(own & each) / len(each) >= self._near for each in self._shingles) else ""
        )


def shingles(text: str) -> Shingles:
    """All sequences of three words in `text`, folded and without punctuation."""
    words = _WORD.findall(fold(text))
    return frozenset(zip(*(words[start:] for start in range(_SHINGLE)), strict=False))


def _keys(title: str, text: str) -> tuple[str, str]:
    """The text, and the passage as the model reads it: one text under two titles is one text."""
    return text_key(text), text_key(passage_text(title, text))


def text_key(text: str) -> str:
    """What two copies of one text have in common, however it is spelt and whatever punctuation ends it."""
    return normalise_query(fold(escape(text)))
