"""Named entities by rules on capitals: no model, nothing to install, English and other languages with capitals.

A run of capitalised words is an entity. A single one at the start of a sentence is, only if the title or the inside of
another sentence shows that it is a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rerank_core.features.names import normal_form
from rerank_core.features.wordlists import COMMON, word_set
from schemas.records import Mention

VERSION = "2"
"""Raise with every change that can alter a mention."""

_CAPITAL = f"[{''.join(chr(c) for c in range(0x530) if chr(c).isupper())}]"  # Latin, Greek and Cyrillic
_WORD = rf"(?:(?:{_CAPITAL}\.)+|{_CAPITAL}[\w'’&-]*)"
_HONOUR = r"(?:(?:Dr|Mr|Mrs|Ms|Prof|St)\.)"  # whose dot ends no sentence
_LINK = r"(?:of|the|de|la|le|du|del|della|di|da|von|van|der|den|al|el|bin|ibn|y)"
_GAP = r"[^\S\n]+"  # a name does not run on to the next line
_SPAN = re.compile(
    rf"(?<!\w)(?:{_HONOUR}{_GAP})?{_WORD}"
    rf"(?:(?:{_GAP}{_LINK}){{0,2}}{_GAP}(?:{_WORD}|\d{{1,4}}(?![\w-])))*"
)
_SENTENCE_START = re.compile(r"(?:^|[.!?][\"”’)]?\s+|[\n:]\s*|[\"“(]\s*)$")
_TOKEN = re.compile(r"\S+")
_EDGES = ".'’-&"
_DOTTED_END = re.compile(rf"{_CAPITAL}\.{_CAPITAL}\.\Z")
_POSSESSIVES = ("'s", "’s", "'S", "’S")
_ABBREVIATED = re.compile(r"(?:[A-Z]\.)*[A-Z]{2,}|(?:[A-Z]\.)+[A-Z]?")
_PERSON_FIRST = word_set("dr mr mrs ms prof professor sir dame king queen prince princess president")
_PLACE_FIRST = word_set("river mount mt lake cape")
_PLACE_LAST = word_set(
    "river lake mountain mountains county island islands street avenue valley bay desert ocean sea peninsula"
)
_ORG_FIRST = word_set("university college bank ministry department institute church")
_ORG_LAST = word_set(
    """inc corp ltd llc plc corporation company university college institute association committee council
    party agency foundation society ministry department bank museum orchestra fc club"""
)


class RulesRecogniser:
    """Finds runs of capitalised words."""

    @property
    def fingerprint(self) -> str:
        return f"rules-{VERSION}"

    def recognise(self, passages: Sequence[tuple[str, str]]) -> list[tuple[Mention, ...]]:
        """Mentions in the text of each (title, text), in the order of the text."""
        return [_recognise(title, text) for title, text in passages]


def _recognise(title: str, text: str) -> tuple[Mention, ...]:
    spans = [(start, end, _starts_sentence(text, start)) for start, end in _spans(text)]
    proven = {normal_form(text[start:end]) for start, end, opens in spans if not opens} | {normal_form(title)}
    proven |= set(normal_form(title).split())
    mentions = []
    for start, end, opens in spans:
        span = text[start:end]
        normal = normal_form(span)
        single = opens and " " not in span and not _ABBREVIATED.fullmatch(span)
        if normal and not (single and normal not in proven):
            mentions.append(Mention(span, _label(span), start, end))
    return tuple(mentions)


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of runs of capitalised words, without common words at both ends ("The River Thames")."""
    for match in _SPAN.finditer(text):
        run = match.group()
        tokens = [(token.start(), token.end()) for token in _TOKEN.finditer(run)]
        shouted = run.isupper() and len(tokens) > 1
        common = [_is_common(run[start:end], shouted=shouted) for start, end in tokens]
        if all(common):
            continue
        first, last = common.index(False), len(common) - 1 - common[::-1].index(False)
        start, end = _strip(text, match.start() + tokens[first][0], match.start() + tokens[last][1])
        if start < end:
            yield start, end


def _is_common(word: str, *, shouted: bool) -> bool:
    """Whether a word is no name. "US" and "WHO" are, unless the whole run is in capitals ("ABOUT US")."""
    if (
        _ABBREVIATED.fullmatch(word)
        and not shouted
        and len(word) > 1
        and word.replace(".", "") in ("US", "WHO")
    ):
        return False
    return word.casefold().strip(_EDGES) in COMMON


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without a possessive and punctuation at its edges; the dot of "U.S." stays."""
    while start < end and text[start] in _EDGES:
        start += 1
    while start < end:
        if text[start:end].endswith(_POSSESSIVES) and end - start > 2:
            end -= 2
        elif text[end - 1] in _EDGES and not _DOTTED_END.search(text, max(start, end - 4), end):
            end -= 1
        else:
            break
    return start, end


def _starts_sentence(text: str, start: int) -> bool:
    return _SENTENCE_START.search(text[max(0, start - 4) : start]) is not None


def _label(span: str) -> str:
    """The label that the first or last word indicates; MISC if neither does."""
    words = [word.strip(_EDGES) for word in span.casefold().split()]
    if len(words) < 2:
        return "MISC"
    if words[0] in _PERSON_FIRST and "of" not in words:
        return "PER"
    if words[-1] in _ORG_LAST or (words[0] in _ORG_FIRST and words[1] == "of"):
        return "ORG"
    if words[0] in _PLACE_FIRST or words[-1] in _PLACE_LAST:
        return "LOC"
    return "MISC"
