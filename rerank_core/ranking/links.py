"""How a query's candidates are linked, by their titles and the names in their texts; no tag is read.

A question of several hops names its first passage, and that passage names the next one, of which the question says
nothing: "the author of The Haunting" -> The Haunting -> Shirley Jackson. Titles are compared as lower-case words,
without a bracket at their end ("Paris (mythology)"). A title or a name that many candidates hold says little of any, as
for HOP.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache

from rerank_core.features.hop import joins
from rerank_core.features.names import lower_words, normal_form
from rerank_core.features.ner.rules import RulesRecogniser

SHORTEST = 3
"""Letters of a title that is looked for; "It" and "US" stand everywhere."""

_BRACKETED = re.compile(r"\s*\([^()]*\)\s*$")


def named_by(titles: Sequence[str], texts: Sequence[str], *, min_idf: float) -> list[list[int]]:
    """Of each candidate, the places of those whose text holds its title, in order; they have another title themselves.

    Args:
        titles, texts: of the candidates.
        min_idf: a title counts only from this inverse document frequency on, ln(candidates / holders), or where
            few hold it (`hop.FEWEST_UBIQUITOUS`).
    """
    names = list(map(_plain, titles))
    held = _holders(set(names), [lower_words(text) for text in texts])
    found = []
    for name in names:
        others = [place for place in held.get(name, ()) if names[place] != name]
        found.append(others if others and joins(len(others), len(texts), min_idf=min_idf) else [])
    return found


def sharing_names(titles: Sequence[str], texts: Sequence[str], *, min_idf: float) -> list[list[int]]:
    """Of each candidate, the places of those with another title that hold a rare name that it holds too, in order.

    Names are runs of capitalised words (`recognisers.rules`), and the title. Arguments are those of `named_by`.
    """
    plain = list(map(_plain, titles))
    held = list(map(_names, titles, texts))
    holders: dict[str, list[int]] = {}
    for place, names in enumerate(held):
        for name in names:
            holders.setdefault(name, []).append(place)
    rare = {
        name: places
        for name, places in holders.items()
        if len(places) > 1 and joins(len(places), len(texts), min_idf=min_idf)
    }
    near = [{place for name in names for place in rare.get(name, ())} for names in held]
    return [
        sorted(place for place in places if place != own and (plain[place] != plain[own] or not plain[own]))
        for own, places in enumerate(near)
    ]


def stand_apart(query: str, titles: Sequence[str], named: Sequence[Sequence[int]]) -> list[bool]:
    """Whether a candidate's title stands neither in the query nor in another candidate, nor another's title in it.

    Args:
        query: its text.
        titles: of the candidates. One without a title that could stand anywhere is not said to stand apart.
        named: what `named_by` gives for them.
    """
    names = list(map(_plain, titles))
    naming = {place for holders in named for place in holders}
    asked = f" {lower_words(query)} "
    return [
        bool(name) and f" {name} " not in asked and not named[place] and place not in naming
        for place, name in enumerate(names)
    ]


_RULES = RulesRecogniser()


@lru_cache(maxsize=8192)  # one passage is a candidate of many queries
def _names(title: str, text: str) -> frozenset[str]:
    (mentions,) = _RULES.recognise([(title, text)])
    own = normal_form(_BRACKETED.sub("", title))
    return frozenset({own, *(normal_form(one.text) for one in mentions)} - {""})


def _holders(names: Collection[str], texts: Sequence[str]) -> dict[str, list[int]]:
    """The places of the texts that hold each name. By their words: to look for each in every text takes too long."""
    places: dict[str, set[int]] = {}
    for place, text in enumerate(texts):
        for word in set(text.split()):
            places.setdefault(word, set()).add(place)
    held = {}
    for name in filter(None, names):
        near = set.intersection(*(places.get(word, set()) for word in name.split()))
        held[name] = sorted(place for place in near if f" {name} " in f" {texts[place]} ")
    return held


def _plain(title: str) -> str:
    plain = lower_words(_BRACKETED.sub("", title))
    return plain if len(plain) >= SHORTEST else ""
