"""HOP: how many shared entities lie between the query and a candidate, and by which chain.

The graph joins two candidates that name the same entity. Breadth-first search starts from the query's own entities: a
candidate that names one of them has HOP 0, one that shares an entity with those HOP 1, and so on. An entity that many
candidates name says little about any of them, so it joins nothing but the query: its inverse document frequency among
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
"""An entity of more than a tenth of the candidates is ubiquitous: e ** 2.3 is 10."""

FEWEST_UBIQUITOUS = 4
"""Holders below which an entity is never ubiquitous: among few candidates, frequency means little."""


class Hop(NamedTuple):
    """Where the search reached a passage."""

    hop: int
    entity: str = ""  # by which it was reached: one of the query's at HOP 0; "" if unreachable
    passage: int | None = None  # the passage before it in the chain; None at HOP 0 or if unreachable


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
        names: an id of each passage. Of several equally short chains, that through the rarest entity is taken, then
            the first by id. None: the passages' order.

    Returns:
        One Hop for each passage, HOP_UNREACHABLE where no chain leads to it.
    """
    named = names or [f"{index:06d}" for index in range(len(passages))]
    holders: dict[str, list[int]] = {}
    for index, entities in enumerate(passages):
        for entity in entities:
            holders.setdefault(entity, []).append(index)
    hops_found: list[Hop | None] = [None] * len(passages)
    frontier: dict[str, int | None] = dict.fromkeys(core)  # entity -> the passage that it was taken from
    seen, depth = set(core), 0
    while frontier:
        reached = _reach(frontier, holders, hops_found, hop=min(depth, max_hop))
        frontier = {}
        for index in sorted(reached, key=lambda i: named[i]):
            for entity in passages[index]:
                if entity not in seen and joins(len(holders[entity]), len(passages), min_idf=min_idf):
                    frontier.setdefault(entity, index)
        seen.update(frontier)
        depth += 1
    return [hop or Hop(HOP_UNREACHABLE) for hop in hops_found]


def chain(reached: Sequence[Hop], index: int, names: Sequence[str]) -> tuple[str, ...]:
    """How the query leads to a passage: entity, passage, entity, ..., the last being the passage's own.

    () for a passage that no chain reaches. A chain may be longer than `max_hop`, to which HOP is limited.
    """
    parts: list[str] = []
    at: int | None = index
    while at is not None and reached[at].entity:
        if at != index:
            parts.append(names[at])
        parts.append(reached[at].entity)
        at = reached[at].passage
    return tuple(reversed(parts))


def _reach(
    frontier: dict[str, int | None],
    holders: dict[str, list[int]],
    hops_found: list[Hop | None],
    *,
    hop: int,
) -> list[int]:
    """Enter into `hops_found` what the frontier leads to; by the rarest entity first, so that chains go through it."""
    reached = []
    by_rarity = sorted(frontier, key=lambda entity: (len(holders.get(entity, ())), entity))
    for entity in by_rarity:
        for index in holders.get(entity, ()):
            if hops_found[index] is None:
                hops_found[index] = Hop(hop, entity, frontier[entity])
                reached.append(index)
    return reached


def joins(holders: int, passages: int, *, min_idf: float) -> bool:
    """Whether an entity that so many of the passages name is rare enough to join two of them."""
    return holders < FEWEST_UBIQUITOUS or math.log(passages / holders) >= min_idf


def _search(given: TagInput) -> list[Hop]:
    core, candidates = given.once(link_input)
    entities = [frozenset((linked.title, *linked.mentions)) - {""} for linked in candidates]
    config = given.config
    return hops(core, entities, max_hop=config.max_hop, min_idf=config.min_idf, names=given.names)


def _hop(given: TagInput) -> list[int]:
    return [reached.hop for reached in given.once(_search)]


def _chain(given: TagInput) -> list[tuple[str, ...]]:
    reached = given.once(_search)
    return [chain(reached, index, given.names) for index in range(len(reached))]


HOP = Tag(_hop, "HOP", values=(HOP_UNREACHABLE, 0, 1, 2, 3), ideal=0)
CHAIN = Tag(_chain)
