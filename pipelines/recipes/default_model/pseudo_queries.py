"""Pseudo-queries made from raw text, so that a model sees more kinds of query than the labelled sets have.

Three ways, each a pure function of a passage: its title; one of its sentences, which is then removed from it; the
keywords of one of its sentences, as people type them into a search box. They need no labels, and the passage is only
probably the best answer: such queries are taught by the teacher's scores.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pipelines.recipes.default_model.questions import SetPassage

WAYS = ("keywords", "sentence", "title")
WAY_SHARES = (0.5, 0.3, 0.2)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"“(]?[A-Z0-9])")
_WORD = re.compile(r"[^\W_][\w'’-]*")
_MIN_SENTENCE_WORDS = 5
_MAX_QUERY_WORDS = 32


class PseudoQuery(NamedTuple):
    """A query, the passage that should answer it, and the way it was made."""

    query: str
    passage: SetPassage
    way: str  # one of WAYS


def document_frequencies(texts: Iterable[str]) -> Counter[str]:
    """Number of texts with each lower-cased word; under "" the number of all texts."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({word.casefold() for word in _WORD.findall(text)})
        counts[""] += 1
    return counts


def sentences(text: str) -> list[str]:
    """Sentences of a text, split at closing marks before a capital."""
    return [s for s in _SENTENCE_END.split(text.strip()) if s]


def pseudo_query(
    passage: SetPassage, frequencies: Mapping[str, int], *, generator: random.Random
) -> PseudoQuery | None:
    """A query that `passage` should answer, made in a way drawn from WAYS; None if it cannot be made that way."""
    way = generator.choices(WAYS, WAY_SHARES)[0]
    if way == "title":
        return PseudoQuery(passage.title, passage, way) if passage.title and not _same(passage) else None
    parts = sentences(passage.text)
    usable = [i for i, s in enumerate(parts) if len(s.split()) >= _MIN_SENTENCE_WORDS]
    if not usable:
        return None
    chosen = generator.choice(usable)
    if way == "sentence":
        rest = " ".join(s for i, s in enumerate(parts) if i != chosen)
        query = " ".join(parts[chosen].split()[:_MAX_QUERY_WORDS])
        return PseudoQuery(query, passage._replace(text=rest), way) if rest else None
    words = keywords(parts[chosen], frequencies, count=generator.randint(2, 5), generator=generator)
    return PseudoQuery(words, passage, way) if words else None


def keywords(sentence: str, frequencies: Mapping[str, int], *, count: int, generator: random.Random) -> str:
    """`count` of a sentence's keywords, lower-cased, in their order; "" if it has fewer than two.

    They are drawn by inverse document frequency, so rare words are likely but not certain: people leave out keywords
    too.
    """
    total = frequencies.get("", 1)
    weight = {
        word: math.log((1 + total) / (1 + frequencies.get(word, 0)))
        for word in dict.fromkeys(w.casefold() for w in _WORD.findall(sentence))
    }
    # A word that occurs in an eighth of the texts or more is a function word.
    eligible = [w for w in weight if weight[w] > math.log(8) and len(w) > 2]
    if len(eligible) < 2:
        return ""
    # Efraimidis and Spirakis 2006: the largest u^(1/w) are a weighted sample without replacement.
    drawn = {w: generator.random() ** (1 / weight[w]) for w in eligible}
    chosen = set(sorted(eligible, key=lambda w: -drawn[w])[:count])
    return " ".join(w for w in eligible if w in chosen)


def _same(passage: SetPassage) -> bool:
    return passage.text.strip() == passage.title.strip()
