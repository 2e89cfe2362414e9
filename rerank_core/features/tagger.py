"""Tags of a query's candidates, computed from the query and the candidates alone.

In two steps: `read` gives the facts of each passage, which do not depend on the query and are reused from night to
night; `tag_facts` relates the query and its candidates. Neither can see labels, clicks or scores: they are not among
the arguments. Neither depends on the candidates' order, and so neither does the model's input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

from rerank_core.config.night import Tagging
from rerank_core.features.causal import causal
from rerank_core.features.ner import Recogniser, load_recogniser
from rerank_core.features.role import role
from rerank_core.features.tags import TagInput, all_tags
from rerank_core.text import fingerprint
from schemas.records import PassageFacts
from schemas.tags import Tags

TAGGER_VERSION = "2"
"""Raise with every change that can alter a tag: it is part of the tagger's fingerprint."""

DEFAULT = Tagging()


def facts_fingerprint(recogniser: Recogniser) -> str:
    """Identity of what `read` gives: its version and the recogniser's."""
    return fingerprint("facts", TAGGER_VERSION, recogniser.fingerprint)[:16]


def tagger_fingerprint(config: Tagging, recogniser: Recogniser) -> str:
    """Identity of the tagger: its version, the recogniser and the parameters that decide a tag."""
    deciding = dataclasses.replace(
        config, enabled=True, model_input="auto", recogniser="rules", recogniser_model=""
    )
    return fingerprint("tags", facts_fingerprint(recogniser), repr(deciding))[:16]


def read(passages: Sequence[tuple[str, str]], recogniser: Recogniser) -> list[PassageFacts]:
    """The facts of each (title, text)."""
    return [
        PassageFacts(mentions, len(text.split()), role(text), causal(text))
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
        names: an id of each passage, for the chains; None: its number, from 0.

    Returns:
        One Tags a passage, in the passages' order.
    """
    facts = read([("", query), *passages], recogniser or default_recogniser(config))
    names = names or [str(index) for index in range(len(passages))]
    return tag_facts(query, facts[0], passages, facts[1:], names=names, config=config)


def tag_facts(
    query: str,
    query_facts: PassageFacts,
    passages: Sequence[tuple[str, str]],
    facts: Sequence[PassageFacts],
    *,
    names: Sequence[str],
    config: Tagging,
) -> list[Tags]:
    """Tags of passages that were read already.

    Args:
        query: the query's text.
        query_facts: its facts.
        passages, facts: (title, text) of each candidate unit, and its facts.
        names: an id of each, for the chains.
        config: limits and thresholds.
    """
    given = TagInput(query, query_facts, passages, facts, names, config)
    columns = {name: tag.compute(given) for name, tag in all_tags().items()}
    rows = zip(*columns.values(), strict=True)
    return [Tags(**dict(zip(columns, row, strict=True))) for row in rows]


@lru_cache(maxsize=4)
def default_recogniser(config: Tagging, *, threads: int = 0) -> Recogniser:
    """The recogniser that the configuration names, opened once a process."""
    return load_recogniser(config, threads=threads)
