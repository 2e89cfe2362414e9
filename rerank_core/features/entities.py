"""ENT: the normal form in which two mentions are one entity, and linking within a query's candidates.

Nothing here finds entities: that is a recogniser's work. Two mentions are one entity if their normal forms are
equal, and `link` replaces a shorter form ("Moss", "NSA") by the longer one that it stands for, where the query
and its candidates leave no doubt which. Where they do, the shorter form stays: two entities taken for one make
a false bridge, one entity taken for two only misses one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from typing import NamedTuple

from rerank_core.features.wordlists import (
    ABBREVIATED_PREFIXES,
    ABBREVIATIONS,
    ABBREVIATIONS_IN_ANY_CASE,
    COMMON,
    LONG_FORMS,
    NO_SURNAMES,
    NOT_FIRST_NAMES,
    PLACES,
    WORDS_TOO,
    word_set,
)
from schemas.records import Mention


class Named(NamedTuple):
    """What a passage names; the query is one too, with the title ""."""

    title: str
    mentions: tuple[Mention, ...]  # in the order of the text


class Linked(NamedTuple):
    """The same in canonical normal forms, in the same order; "" for what names nothing."""

    title: str
    mentions: tuple[str, ...]


_HONOURS = word_set("dr mr mrs ms sir dame prof professor president the a an")
_NOBLE = word_set(
    "king queen prince princess lord lady"
)  # "King George" is not any George, "Queen Ann Lee" is Ann Lee
_SUFFIXES = word_set("inc incorporated ltd limited corp corporation co llc plc gmbh ag jr")
_NOT_WORD = re.compile(r"[\W_]+")
_POSSESSIVE = re.compile(r"['’](?:[sS]\b|(?!\w))")
_QUOTES = str.maketrans("‘ʼ`´", "''''")
_MARKS = re.compile("[\u0300-\u036f]+")  # of Latin, Greek and Cyrillic; other scripts need theirs
_LETTERS = str.maketrans(  # that no decomposition takes apart
    {
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
        "đ": "d",
        "Đ": "D",
        "æ": "ae",
        "Æ": "Ae",
        "œ": "oe",
        "Œ": "Oe",
        "ı": "i",
    }
)
_INITIAL_DOT = re.compile(r"\b([^\W\d_])\.")
_DOTTED = re.compile(r"\b(?:[^\W\d_]\.)+[^\W\d_]?(?!\w)")
_INITIALS = re.compile(r"\b([A-ZÀ-ÞΑ-ΩА-Я]) (?=[A-ZÀ-ÞΑ-ΩА-Я]\b)")
_TYPED_INITIALS = re.compile(r"\b([^\W\d_]) (?=[^\W\d_]\b)")
_BRACKETED = re.compile(r"\([^()]*\)$")
_ACRONYM = re.compile(r"[A-Z]{3,6}")
_FUNCTION_WORDS = word_set("of the and for in on at to a an from with by or is vs")
_PARTICLES = word_set("de del della di la le du des")
_ACRONYM_ELSEWHERE = 4  # letters from which an acronym may be explained by another passage
_MOST_WORDS = 4  # of a person's name


@lru_cache(maxsize=65536)
def normalise(entity: str) -> str:
    """The form in which mentions are compared; "" for what names nothing.

    Case, accents, dots, dashes, possessives, titles of honour, leading articles and "Inc." at the end are
    ignored, and a few abbreviations written out. "US" and "U.S." are the country, "us" and "Us" are not.
    """
    words = _plain(entity).split()
    start, end = 0, len(words)
    while end - start > 1 and words[start].casefold() in _HONOURS:
        start += 1
    if end - start > 2 and words[start].casefold() in _NOBLE:
        start += 1
    while end - start > 1 and words[end - 1].casefold() in _SUFFIXES:
        end -= 1
    words = words[start:end]
    if words and words[0] in ABBREVIATIONS and (len(words) == 1 or words[0] in ABBREVIATED_PREFIXES):
        words[0] = ABBREVIATIONS[words[0]]
    normal = " ".join(words).casefold().replace("saint ", "st ")
    return LONG_FORMS.get(normal, normal)


def normalise_text(text: str) -> str:
    """`text` as lower-case words joined by single spaces."""
    return re.sub(r"[^\w]+", " ", text.casefold()).strip()


def _plain(text: str, *, join: bool = True) -> str:
    """`text` as words joined by single spaces, in their case: no accents, dots or possessives."""
    if not text.isascii():
        marked = unicodedata.normalize("NFKD", text.translate(_QUOTES))
        text = unicodedata.normalize("NFC", _MARKS.sub("", marked)).translate(_LETTERS)
    text = _POSSESSIVE.sub("", text)
    words = _NOT_WORD.sub(" ", _INITIAL_DOT.sub(r"\1", text)).strip()
    return _INITIALS.sub(r"\1", words) if join else words


class _Query(NamedTuple):
    """A query as names are looked up in it."""

    spellings: str  # lower-case, padded: as typed, with initials joined, with abbreviations written out
    capitalised: frozenset[str]  # words whose capitals say that they are names


@lru_cache(maxsize=256)
def _query(query: str) -> _Query:
    typed, joined = _plain(query, join=False), _plain(query)
    initials = _TYPED_INITIALS.sub(r"\1", typed)
    shouted = query.isupper()  # capitals throughout mean nothing
    dotted = {match.group().replace(".", "").upper() for match in _DOTTED.finditer(query)}
    words = joined.split()
    full = [_written_out(word, dotted=dotted, shouted=shouted) for word in words]
    names = {
        word.casefold()
        for place, word in enumerate(words)
        if not shouted and ((word[0].isupper() and place) or (word.isupper() and len(word) > 1))
    }
    spellings = " | ".join(dict.fromkeys((typed, joined, initials, " ".join(full)))).casefold()
    return _Query(f" {spellings} ", frozenset(names))


def _written_out(word: str, *, dotted: set[str], shouted: bool) -> str:
    if word.upper() in dotted or not shouted:
        known = ABBREVIATIONS.get(word.upper() if word.upper() in dotted else word)
        if known:
            return known
    return ABBREVIATIONS_IN_ANY_CASE.get(word.casefold(), word)


def stands_in(entity_normal: str, query: str) -> bool:
    """Whether the name, in normal form, stands in the query as typed, with or without capitals.

    A name that is an ordinary word ("us", "who", "may", "general", one letter) needs its capital: the query
    "tell us who" names neither a country nor a band. A capital that opens the query or a query all in capitals
    is no proof.
    """
    asked = _query(query)
    if not entity_normal or f" {entity_normal} " not in asked.spellings:
        return False
    ordinary = entity_normal in COMMON or entity_normal in WORDS_TOO or len(entity_normal) == 1
    return not ordinary or entity_normal in asked.capitalised


class _Names(NamedTuple):
    """The longer names among the query and its candidates, by what may stand for them."""

    by_surname: Mapping[str, Set[str]]
    by_first_name: Mapping[str, Set[str]]  # of names that a mention calls PER
    by_initials: Mapping[str, Set[str]]


def link(passages: Sequence[Named]) -> list[Linked]:
    """Canonical forms within one query's candidates.

    A shorter form goes to the longer one that its own passage names (for an acronym anywhere, for a part of a
    person's name before it; the title counts as first), else to the only one in all passages that it can be.

    Args:
        passages: the query and its candidates, in any order: the result does not depend on it.

    Returns:
        One Linked for each.
    """
    linked = [
        Linked(_normal_title(passage.title), tuple(normalise(mention.text) for mention in passage.mentions))
        for passage in passages
    ]
    while True:  # every change turns one word into several, so this ends; a second call finds nothing to do
        names = _longer_names(passages, linked)
        longer = [_link_passage(p, one, names) for p, one in zip(passages, linked, strict=True)]
        if longer == linked:
            return linked
        linked = longer


@lru_cache(maxsize=8192)
def _normal_title(title: str) -> str:
    """A title without what only tells it from others: "Rome (album)", "Salem, Oregon"."""
    bare = _BRACKETED.sub("", title.strip()).strip() or title
    place, comma, region = bare.rpartition(", ")
    return normalise(place if comma and normalise(region) in PLACES else bare)


def _longer_names(passages: Sequence[Named], linked: Sequence[Linked]) -> _Names:
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for passage, one in zip(passages, linked, strict=True):
        if " " in one.title:
            labels.setdefault(one.title, set())
        for mention, name in zip(passage.mentions, one.mentions, strict=True):
            if " " in name:
                labels[name].add(mention.label)
    by_surname: defaultdict[str, set[str]] = defaultdict(set)
    by_first_name: defaultdict[str, set[str]] = defaultdict(set)
    by_initials: defaultdict[str, set[str]] = defaultdict(set)
    for name, said in labels.items():
        shape = _shape(name)
        if shape.personal and ("PER" in said or said.isdisjoint(("LOC", "ORG"))):
            by_surname[shape.last].add(name)
            if "PER" in said:
                by_first_name[shape.first].add(name)
        if "PER" not in said or "ORG" in said:
            for initials in shape.initials:
                by_initials[initials].add(name)
    return _Names(by_surname, by_first_name, by_initials)


class _Shape(NamedTuple):
    first: str
    last: str
    personal: bool  # a person's name can look so
    initials: Set[str]  # of all words and of the main ones: "DOJ" and "FBI" both occur


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
    """The name that the acronym stands for; `name` itself where that is in doubt or `text` is no acronym."""
    candidates = names.by_initials.get(name)
    if not candidates or not _ACRONYM.fullmatch(text.replace(".", "")):
        return name
    here = candidates & own
    if here or len(name) < _ACRONYM_ELSEWHERE:
        return _only(here) or name
    return _only(candidates) or name


def _person(mention: Mention, name: str, before: Set[str], *, names: _Names) -> str:
    """The person whose name the word is part of; `name` itself where that is in doubt."""
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
