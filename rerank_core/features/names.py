"""The normal form in which two names are compared, and whether a query holds a name."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from rerank_core.features.wordlists import (
    ABBREVIATED_PREFIXES,
    ABBREVIATIONS,
    ABBREVIATIONS_IN_ANY_CASE,
    COMMON,
    LONG_FORMS,
    WORDS_TOO,
    word_set,
)
from rerank_core.text import fold, remembered

_HONOURS = word_set("dr mr mrs ms sir dame prof professor president the a an")
# "King George" is not any George, "Queen Ann Lee" is Ann Lee
_NOBLE = word_set("king queen prince princess lord lady")
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


@lru_cache(maxsize=65536)
def normal_form(entity: str) -> str:
    """The form in which mentions are compared; "" for what is no name.

    Case, accents, dots, dashes, possessives, titles of honour, leading articles and "Inc." at the end are
    ignored, and a few abbreviations written out. "US" and "U.S." are the country, "us" and "Us" are not.
    """
    words = _words(entity).split()
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


@remembered
def lower_words(text: str) -> str:
    """`text` as lower-case words joined by single spaces, in the form in which texts are compared."""
    return re.sub(r"[^\w]+", " ", fold(text)).strip()


def _words(text: str, *, join: bool = True) -> str:
    """`text` as words joined by single spaces, in their case: no accents, dots or possessives."""
    if not text.isascii():
        marked = unicodedata.normalize("NFKD", text.translate(_QUOTES))
        text = unicodedata.normalize("NFC", _MARKS.sub("", marked)).translate(_LETTERS)
    text = _POSSESSIVE.sub("", text)
    words = _NOT_WORD.sub(" ", _INITIAL_DOT.sub(r"\1", text)).strip()
    return _INITIALS.sub(r"\1", words) if join else words


class _QueryWords(NamedTuple):
    """A query, prepared for the search for names in it."""

    spellings: str  # lower-case, padded: as typed, with initials joined, with abbreviations written out
    capitalised: frozenset[str]  # words whose capitals show that they are names


@lru_cache(maxsize=256)
def _query_words(query: str) -> _QueryWords:
    typed, joined = _words(query, join=False), _words(query)
    initials = _TYPED_INITIALS.sub(r"\1", typed)
    shouted = query.isupper()  # capitals throughout mean nothing
    dotted = {match.group().replace(".", "").upper() for match in _DOTTED.finditer(query)}
    words = joined.split()
    full = [_written_out(word, dotted=dotted, shouted=shouted) for word in words]
    names = {
        word.casefold()
        for index, word in enumerate(words)
        if not shouted and ((word[0].isupper() and index) or (word.isupper() and len(word) > 1))
    }
    spellings = " | ".join(dict.fromkeys((typed, joined, initials, " ".join(full)))).casefold()
    return _QueryWords(f" {spellings} ", frozenset(names))


def _written_out(word: str, *, dotted: set[str], shouted: bool) -> str:
    if word.upper() in dotted or not shouted:
        known = ABBREVIATIONS.get(word.upper() if word.upper() in dotted else word)
        if known:
            return known
    return ABBREVIATIONS_IN_ANY_CASE.get(word.casefold(), word)


def occurs_in(entity_normal: str, query: str) -> bool:
    """Whether the name, in normal form, occurs in the query, with or without capitals.

    A name that is an ordinary word ("us", "who", "may", "general", one letter) needs its capital: the query
    "tell us who" names neither a country nor a band. A capital that opens the query or a query all in capitals
    is no proof.
    """
    asked = _query_words(query)
    if not entity_normal or f" {entity_normal} " not in asked.spellings:
        return False
    ordinary = entity_normal in COMMON or entity_normal in WORDS_TOO or len(entity_normal) == 1
    return not ordinary or entity_normal in asked.capitalised
