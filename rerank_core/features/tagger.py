"""Tags of a query's candidates, computed from the query and the candidates alone.

In two steps: `read` says what each passage holds, whatever was asked, and is kept from night to night; `tag` puts
the query and its candidates beside each other. Neither can see labels, clicks or scores: they are not among the
arguments. Neither depends on the candidates' order, and so neither does the model's input.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from rerank_core.config.night import Tagging
from rerank_core.features import cues, entities, hop, role
from rerank_core.features.ner import Recogniser, load_recogniser
from rerank_core.text import fingerprint
from schemas.records import PassageFacts, Tags

TAGGER_VERSION = "2"
"""Raise with every change that can alter a tag: it is part of the tagger's fingerprint."""

DEFAULT = Tagging()


def facts_fingerprint(recogniser: Recogniser) -> str:
    """Identity of what `read` says: its version and the recogniser's."""
    return fingerprint("facts", TAGGER_VERSION, recogniser.fingerprint)[:16]


def tagger_fingerprint(config: Tagging, recogniser: Recogniser) -> str:
    """Identity of the tagger: its version, the recogniser and the parameters that decide a tag."""
    deciding = dataclasses.replace(
        config, enabled=True, model_input="auto", recogniser="rules", recogniser_model=""
    )
    return fingerprint("tags", facts_fingerprint(recogniser), repr(deciding))[:16]


def read(passages: Sequence[tuple[str, str]], recogniser: Recogniser) -> list[PassageFacts]:
    """What each (title, text) says of itself."""
    return [
        PassageFacts(mentions, len(text.split()), role.role(text), cues.causal(text))
        for (_, text), mentions in zip(passages, recogniser.recognise(passages), strict=True)
    ]


def tag(
    query: str,
    passages: Sequence[tuple[str, str]],
    *,
    config: Tagging = DEFAULT,
    recogniser: Recogniser | None = None,
    names: Sequence[str] | None = None,
) -> list[Tags]:
    """Tags of each passage.

    Args:
        query: the query's text.
        passages: (title, text) of each candidate unit; a title counts as an entity of its passage.
        config: limits and thresholds.
        recogniser: finds the entity mentions; None: the one that `config` names.
        names: an id of each passage, for the chains; None: its place, from 0.

    Returns:
        One Tags a passage, in the passages' order.
    """
    facts = read([("", query), *passages], recogniser or default_recogniser(config))
    names = names or [str(place) for place in range(len(passages))]
    titles = [title for title, _ in passages]
    return tag_facts(query, facts[0], titles, facts[1:], names=names, config=config)


def tag_facts(
    query: str,
    asked: PassageFacts,
    titles: Sequence[str],
    facts: Sequence[PassageFacts],
    *,
    names: Sequence[str],
    config: Tagging,
) -> list[Tags]:
    """Tags of passages that were read already.

    Args:
        query: the query's text.
        asked: what was read in it.
        titles, facts: of each candidate unit.
        names: an id of each, for the chains.
        config: limits and thresholds.
    """
    named = [entities.Named(title, held.mentions) for title, held in zip(titles, facts, strict=True)]
    linked = entities.link([entities.Named("", asked.mentions), *named])
    held = [frozenset((one.title, *one.mentions)) - {""} for one in linked[1:]]
    core = hop.core_entities(query, linked[0], named, linked[1:])
    found = hop.hops(core, held, max_hop=config.max_hop, min_idf=config.min_idf, names=names)
    return [
        Tags(
            hop=found[index].hop,
            role=passage.role,
            entities=_most_telling(passage, linked[index + 1].mentions, core, limit=config.max_entities),
            causal=passage.causal,
            reasoning=cues.reasoning(len(passage.mentions), passage.words, density=config.reasoning_density),
            hop_chain=hop.chain(found, index, names),
        )
        for index, passage in enumerate(facts)
    ]


@lru_cache(maxsize=4)
def default_recogniser(config: Tagging, *, threads: int = 0) -> Recogniser:
    """The recogniser that the configuration names, opened once a process."""
    return load_recogniser(config, threads=threads)


def _most_telling(
    passage: PassageFacts, canonical: Sequence[str], core: frozenset[str], *, limit: int
) -> tuple[str, ...]:
    """Distinct entities as first spelled: those of the query first, then the most frequent, then the earliest."""
    count = Counter(canonical)
    first: dict[str, str] = {}
    for mention, name in zip(passage.mentions, canonical, strict=True):
        if name:
            first.setdefault(name, mention.text)
    order = sorted(first, key=lambda name: (name not in core, -count[name]))  # stable: earliest first
    return tuple(first[name] for name in order[:limit])
