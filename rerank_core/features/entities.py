"""ENT: the named entities of a passage, linked within a query's candidates.

A recogniser finds the mentions. Two mentions are one entity if their normal forms are equal, and `link` replaces a
shorter form ("Moss", "NSA") by the longer one that it stands for, where the query and its candidates leave no doubt
which. Otherwise the shorter form stays: two entities taken for one make a false bridge, one entity taken for two only
misses one.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from typing import NamedTuple

from rerank_core.features.names import normal_form, occurs_in
from rerank_core.features.tags import Tag, TagInput
from rerank_core.features.wordlists import (
    COMMON,
    NO_SURNAMES,
    NOT_FIRST_NAMES,
    PLACES,
    WORDS_TOO,
    word_set,
)
from schemas.records import Mention, PassageFacts


class Named(NamedTuple):
    """The title and the mentions of a passage, or of the query, whose title is ""."""

    title: str
    mentions: tuple[Mention, ...]  # in the order of the text


class Linked(NamedTuple):
    """The same as canonical names, in the same order; "" for what is no name."""

    title: str
    mentions: tuple[str, ...]


_BRACKETED = re.compile(r"\([^()]*\)$")
_ACRONYM = re.compile(r"[A-Z]{3,6}")
_FUNCTION_WORDS = word_set("of the and for in on at to a an from with by or is vs")
_PARTICLES = word_set("de del della di la le du des")
_ACRONYM_ELSEWHERE = 4  # letters from which an acronym may be explained by another passage
_MOST_WORDS = 4  # of a person's name


class _Names(NamedTuple):
    """Names of several words in the query and its candidates, by their possible short forms."""

    by_surname: Mapping[str, Set[str]]
    by_first_name: Mapping[str, Set[str]]  # of names that have a mention labelled PER
    by_initials: Mapping[str, Set[str]]

    @property
    def short(self) -> Set[str]:
        """All short forms."""
        return self.by_surname.keys() | self.by_first_name.keys() | self.by_initials.keys()


def link(passages: Sequence[Named]) -> list[Linked]:
    """Canonical names within one query's candidates.

    A short form is replaced by the full name in its own passage (of an acronym: anywhere; of a part of a person's name:
    before it, the title being first), else by the only name in all passages that it can stand for.

    Args:
        passages: the query and its candidates, in any order: the result does not depend on it.

    Returns:
        One Linked for each.
    """
    linked = [
        Linked(_normal_title(passage.title), tuple(normal_form(mention.text) for mention in passage.mentions))
        for passage in passages
    ]
    while True:  # every change turns one word into several, so this ends
        names = _longer_names(passages, linked)
        short = names.short
        longer = [
            known
            if short.isdisjoint((known.title, *known.mentions))  # usual, and many times as fast
            else _link_passage(passage, known, names)
            for passage, known in zip(passages, linked, strict=True)
        ]
        if longer == linked:
            return linked
        linked = longer


@lru_cache(maxsize=8192)
def _normal_title(title: str) -> str:
    """A title without its disambiguation: "Rome (album)", "Salem, Oregon"."""
    bare = _BRACKETED.sub("", title.strip()).strip() or title
    name, comma, region = bare.rpartition(", ")
    return normal_form(name if comma and normal_form(region) in PLACES else bare)


def _longer_names(passages: Sequence[Named], linked: Sequence[Linked]) -> _Names:
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for passage, known in zip(passages, linked, strict=True):
        if " " in known.title:
            labels.setdefault(known.title, set())
        for mention, name in zip(passage.mentions, known.mentions, strict=True):
            if " " in name:
                labels[name].add(mention.label)
    by_surname: defaultdict[str, set[str]] = defaultdict(set)
    by_first_name: defaultdict[str, set[str]] = defaultdict(set)
    by_initials: defaultdict[str, set[str]] = defaultdict(set)
    for name, kinds in labels.items():
        shape = _shape(name)
        if shape.personal and ("PER" in kinds or kinds.isdisjoint(("LOC", "ORG"))):
            by_surname[shape.last].add(name)
            if "PER" in kinds:
                by_first_name[shape.first].add(name)
        if "PER" not in kinds or "ORG" in kinds:
            for initials in shape.initials:
                by_initials[initials].add(name)
    return _Names(by_surname, by_first_name, by_initials)


class _Shape(NamedTuple):
    first: str
    last: str
    personal: bool  # whether it can be a person's name
    initials: Set[str]  # of all words, and without function words: "DOJ" and "FBI" both occur


@lru_cache(maxsize=65536)
def _shape(name: str) -> _Shape:
    words = name.split()
    personal = (
        len(words) <= _MOST_WORDS
        and words[0] not in NOT_FIRST_NAMES
        and _FUNCTION_WORDS.isdisjoint(words)
        and all(word.isalpha() for word in words)
    )
    main = [word for word in words if word not in _FUNCTION_WORDS and word not in _PARTICLES]
    initials = {"".join(word[0] for word in some) for some in (words, main)}
    return _Shape(words[0], words[-1], personal, frozenset(initials))


def _link_passage(passage: Named, linked: Linked, names: _Names) -> Linked:
    own = {linked.title, *linked.mentions}
    title = _acronym(passage.title, linked.title, own, names=names)
    before = {title}
    mentions = []
    for mention, name in zip(passage.mentions, linked.mentions, strict=True):
        full = name
        if " " not in name:
            full = _acronym(mention.text, name, own, names=names)
            if full == name:
                full = _person(mention, name, before, names=names)
        mentions.append(full)
        before.add(full)
    return Linked(title, tuple(mentions))


def _acronym(text: str, name: str, own: Set[str], *, names: _Names) -> str:
    """The name that the acronym stands for; `name` itself if that is ambiguous or `text` is no acronym."""
    candidates = names.by_initials.get(name)
    if not candidates or not _ACRONYM.fullmatch(text.replace(".", "")):
        return name
    here = candidates & own
    if here or len(name) < _ACRONYM_ELSEWHERE:
        return _only(here) or name
    return _only(candidates) or name


def _person(mention: Mention, name: str, before: Set[str], *, names: _Names) -> str:
    """The person whose name contains the word; `name` itself if that is ambiguous."""
    by_surname = names.by_surname.get(name, frozenset())
    by_first_name = names.by_first_name.get(name, frozenset()) if mention.label == "PER" else frozenset()
    if not (by_surname or by_first_name) or len(name) < 2:
        return name
    unlabelled = mention.label == "MISC" and not mention.text.isupper()
    if mention.label != "PER" and (not unlabelled or name in COMMON or name in PLACES):
        return name
    here = (by_surname | by_first_name) & before
    if here or (unlabelled and (name in WORDS_TOO or name in NO_SURNAMES)):
        return _only(here) or name
    return _only(by_surname) or name


def _only(names: Set[str]) -> str:
    return next(iter(names)) if len(names) == 1 else ""


def core_entities(
    query: str, query_names: Linked, named: Sequence[Named], linked: Sequence[Linked]
) -> frozenset[str]:
    """The query's entities, in canonical form.

    Args:
        query: its text.
        query_names: its own mentions, linked.
        named, linked: its candidates. Their entities count too where their names occur in the query, as spelled in
            the passage or in full, since people type queries without capitals.
    """
    spelled = {
        (normal_form(mention.text), canonical)
        for passage, link in zip(named, linked, strict=True)
        for mention, canonical in zip(passage.mentions, link.mentions, strict=True)
    }
    full = {canonical for link in linked for canonical in (link.title, *link.mentions)}
    candidates = spelled | {(canonical, canonical) for canonical in full}
    in_query = {canonical for name, canonical in candidates if name and occurs_in(name, query)}
    return (frozenset(query_names.mentions) | in_query) - {""}


class Entities(NamedTuple):
    """The entities of a query and of its candidates, in canonical form."""

    core: frozenset[str]  # the query's
    candidates: list[Linked]


def link_input(given: TagInput) -> Entities:
    """Link the mentions of a query and of its candidates."""
    named = [
        Named(title, facts.mentions) for (title, _), facts in zip(given.passages, given.facts, strict=True)
    ]
    query, *candidates = link([Named("", given.query_facts.mentions), *named])
    return Entities(core_entities(given.query, query, named, candidates), candidates)


def most_telling(
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


def _compute(given: TagInput) -> list[tuple[str, ...]]:
    core, candidates = given.once(link_input)
    return [
        most_telling(facts, linked.mentions, core, limit=given.config.max_entities)
        for facts, linked in zip(given.facts, candidates, strict=True)
    ]


ENT = Tag(_compute, "ENT")
