"""Queries made from raw text, so that a model sees more kinds of question than the labelled sets ask.

Three ways, each a pure function of a passage: its title; one of its sentences, which is then dropped from it; the
telling words of one of its sentences, as people type them into a search box. No labels are needed, and the
passage that gave the query is only probably its best answer: such groups mostly teach a teacher's judgement.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pipelines.recipes.default_model.groups import SetPassage

WAYS = ("keywords", "sentence", "title")
WAY_SHARES = (0.5, 0.3, 0.2)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"“(]?[A-Z0-9])")
_WORD = re.compile(r"[^\W_][\w'’-]*")
_MIN_SENTENCE_WORDS = 5
_MAX_QUERY_WORDS = 32


class PseudoQuery(NamedTuple):
    """A query, the passage that should answer it, and how it was made."""

    query: str
    passage: SetPassage
    way: str  # one of WAYS


def document_frequencies(texts: Iterable[str]) -> Counter[str]:
    """In how many of the texts each lower-cased word stands; the number of texts stands under ""."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({word.casefold() for word in _WORD.findall(text)})
        counts[""] += 1
    return counts


def sentences(text: str) -> list[str]:
    """Sentences of a text, by their closing marks and a following capital."""
    return [s for s in _SENTENCE_END.split(text.strip()) if s]


def pseudo_query(
    passage: SetPassage, frequencies: Mapping[str, int], *, generator: random.Random
) -> PseudoQuery | None:
    """A query that `passage` should answer, made in a way drawn from WAYS; None where the passage cannot give one."""
    way = generator.choices(WAYS, WAY_SHARES)[0]
    if way == "title":
        return PseudoQuery(passage.title, passage, way) if passage.title and not _same(passage) else None
    found = sentences(passage.text)
    usable = [i for i, s in enumerate(found) if len(s.split()) >= _MIN_SENTENCE_WORDS]
    if not usable:
        return None
    chosen = generator.choice(usable)
    if way == "sentence":
        rest = " ".join(s for i, s in enumerate(found) if i != chosen)
        query = " ".join(found[chosen].split()[:_MAX_QUERY_WORDS])
        return PseudoQuery(query, passage._replace(text=rest), way) if rest else None
    words = keywords(found[chosen], frequencies, count=generator.randint(2, 5), generator=generator)
    return PseudoQuery(words, passage, way) if words else None


def keywords(sentence: str, frequencies: Mapping[str, int], *, count: int, generator: random.Random) -> str:
    """Some `count` of a sentence's telling words, lower-cased, in their order; "" where it has fewer than two.

    Drawn by rarity (log of texts over texts with the word), so that rare words come often but not always: people
    leave out telling words too.
    """
    total = frequencies.get("", 1)
    weight = {
        word: math.log((1 + total) / (1 + frequencies.get(word, 0)))
        for word in dict.fromkeys(w.casefold() for w in _WORD.findall(sentence))
    }
    # in an eighth of the texts: a function word
    telling = [w for w in weight if weight[w] > math.log(8) and len(w) > 2]
    if len(telling) < 2:
        return ""
    # Efraimidis and Spirakis: the largest u^(1/w) are a weighted draw without replacement.
    drawn = {w: generator.random() ** (1 / weight[w]) for w in telling}
    kept = set(sorted(telling, key=lambda w: -drawn[w])[:count])
    return " ".join(w for w in telling if w in kept)


def _same(passage: SetPassage) -> bool:
    return passage.text.strip() == passage.title.strip()
