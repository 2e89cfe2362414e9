"""ENT: named entities by rules on capitals, and the normal form in which two mentions are one entity.

A recogniser is any function from (title, text) to mentions in the order of the text. The one here needs no
model; it reads runs of capitalised words, and trusts a lone capital at a sentence's start only if the title or
the inside of another sentence shows it to be a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

Recogniser = Callable[[str, str], tuple[str, ...]]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CAPITAL = f"[{''.join(chr(c) for c in range(0x530) if chr(c).isupper())}]"  # Latin, Greek and Cyrillic
_WORD = rf"(?:(?:{_CAPITAL}\.)+|{_CAPITAL}[\w'’&-]*)"
_LINK = r"(?:of|the|de|la|le|du|del|della|di|da|von|van|der|den|al|el|bin|ibn|y)"
_SPAN = re.compile(rf"(?<!\w){_WORD}(?:(?:\s+{_LINK}){{0,2}}\s+(?:{_WORD}|\d{{1,4}}(?![\w-])))*")
_SENTENCE_START = re.compile(r"(?:^|[.!?][\"”’)]?\s+|[\n:]\s*|[\"“(]\s*)$")
_NOT_WORD = re.compile(r"[^\w]+")
_POSSESSIVE = re.compile(r"['’](?:s\b|(?!\w))")
_TITLES = _words(
    """
    dr mr mrs ms sir dame lord lady prof professor president king queen prince princess saint st the
    """
)
# Words that stand capitalised at a sentence's start (or in a title) and name nothing.
_COMMON = _words(
    """
    a an the this that these those it its he she they we i you his her their our my your who whom whose
    which what when where why how is are was were be been being do does did has have had can could will
    would shall should may might must not no yes and or but nor so yet if then than though although
    while whereas because since after before during until unless as at by for from in into of off on
    onto out over to under up with within without about above across against along among around behind
    below beneath beside between beyond despite down except inside like near outside past per through
    throughout toward towards via also both each either every few many more most much neither none one
    other others several some such two three four five six seven eight nine ten first second third last
    next there here today now later however therefore thus hence moreover furthermore meanwhile
    nevertheless instead finally originally eventually early another all any according due based founded
    born built located known named called situated established published released formed created made
    directed written played produced starring following including given having using only just even
    still again once name list tell find give show describe explain compare monday tuesday wednesday
    thursday friday saturday sunday january february march april may june july august september october
    november december
    """
)


def recognise(title: str, text: str) -> tuple[str, ...]:
    """Mentions of named entities in `text`, in order, repeated as often as they occur."""
    proven = {normalise(span) for span in _inner_spans(text)} | ({normalise(title)} if title else set())
    title_words = set(normalise(title).split())
    mentions = []
    for match in _SPAN.finditer(text):
        span, at_start = (
            _trim(match.group()),
            _SENTENCE_START.search(text[max(0, match.start() - 4) : match.start()]),
        )
        if not span:
            continue
        lone = " " not in span and at_start and not span.isupper()
        normal = normalise(span)
        if normal and not (lone and normal not in proven and normal not in title_words):
            mentions.append(span)
    return tuple(mentions)


def _inner_spans(text: str) -> list[str]:
    """Spans that do not stand at a sentence's start, where every word has a capital."""
    return [
        span
        for match in _SPAN.finditer(text)
        if not _SENTENCE_START.search(text[max(0, match.start() - 4) : match.start()])
        and (span := _trim(match.group()))
    ]


def _trim(span: str) -> str:
    """Drop common words at both ends ("The River Thames" -> "River Thames", "Which" -> "")."""
    words = span.split()
    while words and (words[0].casefold().strip(".'’") in _COMMON):
        words.pop(0)
    while words and (words[-1].casefold().strip(".'’") in _COMMON):
        words.pop()
    return _POSSESSIVE.sub("", " ".join(words)).strip(".'’-& ")


@lru_cache(maxsize=65536)
def normalise(entity: str) -> str:
    """The form in which mentions are compared: case, dots, possessives and titles of honour are ignored."""
    words = normalise_text(_POSSESSIVE.sub("", entity).replace(".", "")).split()
    while len(words) > 1 and words[0] in _TITLES:
        words.pop(0)
    return " ".join(words)


def normalise_text(text: str) -> str:
    """`text` as lower-case words joined by single spaces."""
    return _NOT_WORD.sub(" ", text.casefold()).strip()
