"""HOP: how many shared entities lie between the query and a candidate.

The graph joins two candidates that hold one entity. Breadth-first search starts from the query's own entities:
a candidate that holds one has HOP 0, one that shares an entity with those HOP 1, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.records import HOP_UNREACHABLE


def core_entities(query: str, query_entities: Sequence[str], known: frozenset[str]) -> frozenset[str]:
    """Entities of the query, all in normal form.

    Args:
        query: the query as `entities.normalise_text` gives it.
        query_entities: what the recogniser found in it.
        known: entities of its candidates; those whose words stand in the query count too, since people type
            queries without capitals.
    """
    padded = f" {query} "
    return frozenset(query_entities) | {entity for entity in known if f" {entity} " in padded}


def hops(
    core: frozenset[str],
    passages: Sequence[frozenset[str]],
    *,
    max_hop: int,
    max_entity_share: float,
) -> list[int]:
    """HOP of each passage, given as its set of normalised entities; HOP_UNREACHABLE where no chain leads.

    An entity that more than `max_entity_share` of the passages hold (and at least four) joins nothing but the
    query: "United States" is no bridge. Chains longer than `max_hop` are reported as `max_hop`.
    """
    holders: dict[str, list[int]] = {}
    for index, entities in enumerate(passages):
        for entity in entities:
            holders.setdefault(entity, []).append(index)
    ubiquitous = max(3.0, max_entity_share * len(passages))
    distance = [HOP_UNREACHABLE] * len(passages)
    frontier, seen, depth = set(core), set(core), 0
    while frontier:
        reached = {
            i for entity in frontier for i in holders.get(entity, ()) if distance[i] == HOP_UNREACHABLE
        }
        for i in reached:
            distance[i] = min(depth, max_hop)
        frontier = {
            e for i in reached for e in passages[i] if e not in seen and len(holders[e]) <= ubiquitous
        }
        seen |= frontier
        depth += 1
    return distance
