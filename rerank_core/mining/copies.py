"""Copies of positives: passages that say what a positive says, under another id, and so are no negatives.

A corpus often holds one text several times: versions of a page, syndicated articles, overlapping chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rerank_core.features.render import escape, passage_text
from rerank_core.text import fold, normalise_query

_SHINGLE = 3  # words
_FEWEST_SHINGLES = 8  # a passage that merely mentions a text of fewer than ten words would hold every shingle
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
        folded = {_folded(*passage) for passage in passages}
        self._near = near
        self._texts = frozenset(normalise_query(text) for both in folded for text in both)
        of_each = {_shingles(_WORD.findall(whole)) for _, whole in folded} if near else ()
        self._positives = [_Positive(each) for each in of_each if len(each) >= _FEWEST_SHINGLES]

    def rule(self, title: str, text: str) -> str:
        """Why this passage is no negative: "positive_copy", "near_copy", or "" if it is none of these."""
        folded = _folded(title, text)
        if any(normalise_query(one) in self._texts for one in dict.fromkeys(folded)):
            return "positive_copy"
        words = _WORD.findall(folded[1]) if self._positives else []
        vocabulary = frozenset(words)
        possible = [one for one in self._positives if one.may_be_in(vocabulary, near=self._near)]
        if not possible:  # usual, and three times as fast as to make all shingles
            return ""
        own = _shingles(words)
        return "near_copy" if any(one.share_in(own) >= self._near for one in possible) else ""


class _Positive:
    """A positive's shingles."""

    def __init__(self, shingles: Shingles) -> None:
        self._shingles, self._words = shingles, frozenset(word for each in shingles for word in each)

    def may_be_in(self, vocabulary: frozenset[str], *, near: float) -> bool:
        """False only if a passage of these words lacks too many shingles; each accounts for three missing words."""
        lacking = -(-len(self._words - vocabulary) // _SHINGLE)
        return (len(self._shingles) - lacking) / len(self._shingles) >= near

    def share_in(self, others: Shingles) -> float:
        """The share of the shingles that is among others."""
        return len(others & self._shingles) / len(self._shingles)


def shingles(text: str) -> Shingles:
    """All sequences of three words in `text`, folded and without punctuation."""
    return _shingles(_WORD.findall(fold(text)))


def _shingles(words: Sequence[str]) -> Shingles:
    return frozenset(zip(*(words[start:] for start in range(_SHINGLE)), strict=False))


def _folded(title: str, text: str) -> tuple[str, str]:
    """The text, and the passage as the model reads it: one text under two titles is one text."""
    folded = fold(escape(text))
    whole = folded if passage_text(title, text) == text else f"{fold(escape(title))} {folded}"
    return folded, whole


def text_key(text: str) -> str:
    """What two copies of one text have in common, however it is spelt and whatever punctuation ends it."""
    return normalise_query(fold(escape(text)))
