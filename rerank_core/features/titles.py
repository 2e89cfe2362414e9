"""Which candidates the other candidates call by their titles.

A question of several hops names its first passage, and that passage names the next one, of which the question says
nothing: "the author of The Haunting" -> The Haunting -> Shirley Jackson. Titles are compared as lower-case words,
without a bracket at their end ("Paris (mythology)"). One that many candidates hold says little of any, as for HOP.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rerank_core.features.entities import normalise_text
from rerank_core.features.hop import joins

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
    held = _holders(set(names), [normalise_text(text) for text in texts])
    found = []
    for name in names:
        others = [place for place in held.get(name, ()) if names[place] != name]
        found.append(others if others and joins(len(others), len(texts), min_idf=min_idf) else [])
    return found


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
    plain = normalise_text(_BRACKETED.sub("", title))
    return plain if len(plain) >= SHORTEST else ""
