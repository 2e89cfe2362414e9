"""Tags of a query's candidates, computed from the query and the candidates alone.

`tag` cannot see labels, clicks or scores: they are not among its arguments. It does not depend on the
candidates' order either, and so neither does the model's input.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from rerank_core.config import Tagging
from rerank_core.features import cues, entities, hop, role
from rerank_core.text import fingerprint
from schemas.records import Tags

TAGGER_VERSION = "1"
"""Raise with every change that can alter a tag: it is part of the tagger's fingerprint."""


def tagger_fingerprint(config: Tagging) -> str:
    """Identity of the tagger: its version and the parameters that decide a tag."""
    deciding = dataclasses.replace(config, enabled=True, model_input="auto")
    return fingerprint("rules", TAGGER_VERSION, repr(deciding))[:16]


class _Passage(NamedTuple):
    """What a passage says of itself, whatever was asked."""

    mentions: tuple[str, ...]
    normals: tuple[str, ...]  # of the mentions
    held: frozenset[str]  # its entities, the title among them
    words: int
    role: str
    causal: bool


def tag(
    query: str,
    passages: Sequence[tuple[str, str]],
    *,
    config: Tagging = Tagging(),  # noqa: B008  frozen, so sharing it is safe
    recogniser: entities.Recogniser = entities.recognise,
) -> list[Tags]:
    """Tags of each passage.

    Args:
        query: the query's text.
        passages: (title, text) of each candidate unit; a title counts as an entity of its passage.
        config: limits and thresholds.
        recogniser: finds the entity mentions of a (title, text).

    Returns:
        One Tags a passage, in the passages' order.
    """
    read = [_read(title, text, recogniser) for title, text in passages]
    asked = [entities.normalise(mention) for mention in recogniser("", query)]
    known = frozenset().union(*(passage.held for passage in read))
    core = hop.core_entities(entities.normalise_text(query), asked, known)
    distances = hop.hops(
        core,
        [passage.held for passage in read],
        max_hop=config.max_hop,
        max_entity_share=config.max_entity_share,
    )
    return [
        Tags(
            hop=distance,
            role=passage.role,
            entities=_most_telling(passage, core, limit=config.max_entities),
            causal=passage.causal,
            reasoning=cues.reasoning(len(passage.mentions), passage.words, density=config.reasoning_density),
        )
        for passage, distance in zip(read, distances, strict=True)
    ]


@lru_cache(maxsize=8192)  # a passage is a candidate of many queries; bounded, since memory must stay flat
def _read(title: str, text: str, recogniser: entities.Recogniser) -> _Passage:
    mentions = recogniser(title, text)
    normals = tuple(entities.normalise(mention) for mention in mentions)
    held = (frozenset(normals) | {entities.normalise(title)}) - {""}
    return _Passage(mentions, normals, held, len(text.split()), role.role(text), cues.causal(text))


def _most_telling(passage: _Passage, core: frozenset[str], *, limit: int) -> tuple[str, ...]:
    """Distinct mentions: those of the query first, then the most frequent, then the earliest."""
    count = Counter(passage.normals)
    first: dict[str, str] = {}
    for mention, normal in zip(passage.mentions, passage.normals, strict=True):
        first.setdefault(normal, mention)
    order = sorted(first, key=lambda n: (n not in core, -count[n]))  # sorted is stable: earliest first
    return tuple(first[n] for n in order[:limit])
