"""HOP: how many shared entities lie between the query and a candidate, and by which chain.

The graph joins two candidates that hold one entity. Breadth-first search starts from the query's own entities:
a candidate that holds one has HOP 0, one that shares an entity with those HOP 1, and so on. An entity that many
candidates hold says little of any of them, so it joins nothing but the query: its inverse document frequency among
the candidates, ln(candidates / holders), must reach `min_idf`. "United States" is no bridge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rerank_core.features.entities import link_input
from rerank_core.features.tags import Tag, TagInput
from schemas.tags import HOP_UNREACHABLE

MIN_IDF = 2.3
"""So that an entity of more than a tenth of the candidates is ubiquitous."""

FEWEST_UBIQUITOUS = 4
"""Holders below which an entity is never ubiquitous: few candidates say little of frequency."""


class Hop(NamedTuple):
    """Where the search reached a passage."""

    hop: int
    entity: str = ""  # by which it was reached: the query's own at HOP 0; "" where no chain leads
    passage: int | None = None  # the one before it in the chain; None at HOP 0 and where no chain leads


def hops(
    core: frozenset[str],
    passages: Sequence[frozenset[str]],
    *,
    max_hop: int,
    min_idf: float,
    names: Sequence[str] | None = None,
) -> list[Hop]:
    """HOP of each passage, given as its set of canonical entities.

    Args:
        core: the query's entities.
        passages: each candidate's, its title's among them.
        max_hop: chains longer than this are reported as this.
        min_idf: an entity joins candidates only from this inverse document frequency on.
        names: an id of each passage, by which one of several equally short chains is chosen: through the rarest
            entity, then by the alphabet. None: by the passages' order.

    Returns:
        One Hop a passage, HOP_UNREACHABLE where no chain leads.
    """
    named = names or [f"{index:06d}" for index in range(len(passages))]
    holders: dict[str, list[int]] = {}
    for index, entities in enumerate(passages):
        for entity in entities:
            holders.setdefault(entity, []).append(index)
    found: list[Hop | None] = [None] * len(passages)
    frontier: dict[str, int | None] = dict.fromkeys(core)  # entity -> the passage that it was taken from
    seen, depth = set(core), 0
    while frontier:
        reached = _reach(frontier, holders, found, hop=min(depth, max_hop))
        frontier = {}
        for index in sorted(reached, key=lambda i: named[i]):
            for entity in passages[index]:
                if entity not in seen and joins(len(holders[entity]), len(passages), min_idf=min_idf):
                    frontier.setdefault(entity, index)
        seen.update(frontier)
        depth += 1
    return [hop or Hop(HOP_UNREACHABLE) for hop in found]


def chain(found: Sequence[Hop], index: int, names: Sequence[str]) -> tuple[str, ...]:
    """How the query leads to a passage: entity, passage, entity, ... and at last the entity that it holds itself.

    () for a passage that no chain reaches. A chain may be longer than `max_hop` tells.
    """
    parts: list[str] = []
    at: int | None = index
    while at is not None and found[at].entity:
        if at != index:
            parts.append(names[at])
        parts.append(found[at].entity)
        at = found[at].passage
    return tuple(reversed(parts))


def _reach(
    frontier: dict[str, int | None],
    holders: dict[str, list[int]],
    found: list[Hop | None],
    *,
    hop: int,
) -> list[int]:
    """Note what the frontier's entities lead to; the rarest entity first, so that it is the one in the chain."""
    reached = []
    by_rarity = sorted(frontier, key=lambda entity: (len(holders.get(entity, ())), entity))
    for entity in by_rarity:
        for index in holders.get(entity, ()):
            if found[index] is None:
                found[index] = Hop(hop, entity, frontier[entity])
                reached.append(index)
    return reached


def joins(holders: int, passages: int, *, min_idf: float) -> bool:
    """Whether what `holders` of the candidates hold is rare enough among them to join two of them."""
    return holders < FEWEST_UBIQUITOUS or math.log(passages / holders) >= min_idf


def _search(given: TagInput) -> list[Hop]:
    core, candidates = given.once(link_input)
    entities = [frozenset((linked.title, *linked.mentions)) - {""} for linked in candidates]
    config = given.config
    return hops(core, entities, max_hop=config.max_hop, min_idf=config.min_idf, names=given.names)


def _hop(given: TagInput) -> list[int]:
    return [found.hop for found in given.once(_search)]


def _chain(given: TagInput) -> list[tuple[str, ...]]:
    found = given.once(_search)
    return [chain(found, index, given.names) for index in range(len(found))]


HOP = Tag(_hop, "HOP", values=(HOP_UNREACHABLE, 0, 1, 2, 3), ideal=0)
CHAIN = Tag(_chain)
