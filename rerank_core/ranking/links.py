"""Links between a query's candidates, by their titles and the names in their texts; no tag is read.

A multi-hop question names its first passage, and that passage names the next one, of which the question says nothing:
"the author of The Haunting" -> The Haunting -> Shirley Jackson. Titles are compared as lower-case words, without a
bracketed suffix ("Paris (mythology)"). A title or name that occurs in many candidates is not informative and makes no
link, as for HOP. Candidates are referred to by their index in the list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache

from rerank_core.features.hop import joins
from rerank_core.features.names import lower_words, normal_form
from rerank_core.features.ner.rules import RulesRecogniser

SHORTEST = 3
"""Characters of the shortest title that is searched for; "It" and "US" are everywhere."""

_BRACKETED = re.compile(r"\s*\([^()]*\)\s*$")


def named_by(titles: Sequence[str], texts: Sequence[str], *, min_idf: float) -> list[list[int]]:
    """For each candidate, the indices of those with another title whose text contains its title, rising.

    Args:
        titles, texts: of the candidates.
        min_idf: a title counts only from this inverse document frequency on, ln(candidates / texts with it), or if
            few texts contain it (`hop.FEWEST_UBIQUITOUS`).
    """
    names = list(map(_normalised, titles))
    containing = _texts_containing(set(names), [lower_words(text) for text in texts])
    links = []
    for name in names:
        others = [n for n in containing.get(name, ()) if names[n] != name]
        links.append(others if others and joins(len(others), len(texts), min_idf=min_idf) else [])
    return links


def sharing_names(titles: Sequence[str], texts: Sequence[str], *, min_idf: float) -> list[list[int]]:
    """For each candidate, the indices of those with another title that share a rare name with it, rising.

    Names are runs of capitalised words (`rerank_core.features.ner.rules`), and the title. Arguments are those of
    `named_by`.
    """
    normalised = list(map(_normalised, titles))
    names_of = list(map(_names, titles, texts))
    with_name: dict[str, list[int]] = {}
    for n, names in enumerate(names_of):
        for name in names:
            with_name.setdefault(name, []).append(n)
    rare = {
        name: candidates
        for name, candidates in with_name.items()
        if len(candidates) > 1 and joins(len(candidates), len(texts), min_idf=min_idf)
    }
    linked = [{n for name in names for n in rare.get(name, ())} for names in names_of]
    return [
        sorted(n for n in others if n != own and (normalised[n] != normalised[own] or not normalised[own]))
        for own, others in enumerate(linked)
    ]


def stand_apart(query: str, titles: Sequence[str], named: Sequence[Sequence[int]]) -> list[bool]:
    """Whether a candidate's title is neither in the query nor in another candidate's text, nor another's in its own.

    Args:
        query: its text.
        titles: of the candidates. For one without a title, or with one below SHORTEST, the answer is False.
        named: what `named_by` returns for them.
    """
    names = list(map(_normalised, titles))
    naming = {n for containing in named for n in containing}
    words = f" {lower_words(query)} "
    return [
        bool(name) and f" {name} " not in words and not named[n] and n not in naming
        for n, name in enumerate(names)
    ]


_RULES = RulesRecogniser()


@lru_cache(maxsize=8192)  # one passage is a candidate of many queries
def _names(title: str, text: str) -> frozenset[str]:
    (mentions,) = _RULES.recognise([(title, text)])
    own = normal_form(_BRACKETED.sub("", title))
    return frozenset({own, *(normal_form(mention.text) for mention in mentions)} - {""})


def _texts_containing(names: Collection[str], texts: Sequence[str]) -> dict[str, list[int]]:
    """Indices of the texts that contain each name, by an index of words: searching every text for each is too slow."""
    wanted = {word for name in names for word in name.split()}
    with_word: dict[str, set[int]] = {}
    for n, text in enumerate(texts):
        for word in wanted.intersection(text.split()):
            with_word.setdefault(word, set()).add(n)
    containing = {}
    for name in filter(None, names):
        with_all_words = set.intersection(*(with_word.get(word, set()) for word in name.split()))
        containing[name] = sorted(n for n in with_all_words if f" {name} " in f" {texts[n]} ")
    return containing


def _normalised(title: str) -> str:
    """Lower-case words of a title; "" if it is too short to be searched for."""
    words = lower_words(_BRACKETED.sub("", title))
    return words if len(words) >= SHORTEST else ""
