"""Splitting a multi-part question into sub-queries, by rules on words; no model.

`RULES` are in order of priority, and the first that yields a part decides: "Who is older, the author of X or the author
of Y?" is a comparison, not a chain. Each rule has an example and a counterexample, which are its tests. What could be a
name ("Pride and Prejudice") is not cut: a missed split costs nothing, since the whole query is searched anyway, while
half a name finds the wrong documents.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rerank_core.candidates import question_words as words
from rerank_core.text import normalise_query

# A quoted title is one word. Matching takes linear time: no alternative backtracks far.
_WORD = re.compile(r'"[^"]*"|“[^“”]*”|[,:;?](?!\S)|(?:[^\s"“”,:;?]|[,:;?](?=\S))+|["“”]')
_HEAD_WORDS = 6  # the longest noun phrase before "that" or "who" that is taken along

Span = tuple[int, int]  # [start, end) in words


class _Question:
    """The words of a query, and what their shape tells."""

    def __init__(self, text: str) -> None:
        matches = list(_WORD.finditer(text))
        self.text = text
        self.spans = [match.span() for match in matches]
        self.words = [match.group() for match in matches]
        self.lower = [word.lower() for word in self.words]
        self.cased = text != text.lower()  # else names cannot be recognised

    def __len__(self) -> int:
        return len(self.words)

    def at(self, i: int) -> str:
        """The word at `i` in lower case; "" past the end."""
        return self.lower[i] if 0 <= i < len(self.lower) else ""

    def named(self, i: int) -> bool:
        """Whether the word could belong to a name: a capital, a digit or a quotation."""
        if not 0 <= i < len(self.words) or (i == 0 and self.lower[0] in words.STOP_WORDS):
            return False
        word = self.words[i]
        return word[0] in '"“' or word[0].isdigit() or word != self.lower[i]

    def inside_name(self, i: int) -> bool:
        """Whether the function word at `i` belongs to a name, as in "Lord of the Rings" or "The Who"."""
        after = i + 1 + (self.at(i + 1) in words.DETERMINERS and not self.named(i + 1))
        return self.named(i) or (self.named(i - 1) and self.named(after))

    def content_words(self, start: int, end: int) -> int:
        """How many words between `start` and `end` are no stop words."""
        span = range(max(start, 0), min(end, len(self)))
        return sum(self.lower[i] not in words.SILENT or (i > 0 and self.named(i)) for i in span)

    def names(self, start: int, end: int) -> bool:
        return any(self.named(i) and self.lower[i] not in words.STOP_WORDS for i in range(start, end))

    def opens_with_name(self, start: int, end: int) -> bool:
        while start < end and self.lower[start] in words.DETERMINERS and not self.named(start):
            start += 1
        return start < end and self.named(start)

    def slice(self, span: Span) -> str:
        start, end = span
        if start >= end:
            return ""
        return normalise_query(self.text[self.spans[start][0] : self.spans[end - 1][1]])

    def until(self, start: int, stops: frozenset[str]) -> int:
        """The position of the next of `stops`, or the end."""
        return next((i for i in range(start, len(self)) if self.lower[i] in stops), len(self))


def _alternatives(q: _Question) -> list[Span]:
    """Both sides of "..., A or B?", and of "... first of A and B?"; the sides alone, without the question."""
    compared = [i for i in range(len(q)) if q.lower[i] in words.COMPARATIVES and not q.named(i)]
    middle = _joint(q, compared=bool(compared))
    if not middle:
        return []
    end = _name_end(q, middle + 1, q.until(middle + 1, words.PUNCTUATION))
    before = middle - 1 if q.at(middle - 1) == "," else middle  # "A, or B"
    start = next((i + 1 for i in range(before - 1, 0, -1) if q.lower[i] in words.PUNCTUATION), 0)
    asked_at_once = q.at(0) in words.AUXILIARY and q.opens_with_name(1, middle)  # "Is A or B ...?"
    if not start and (asked_at_once or q.at(0) in words.PAIR_OPENS):
        start = 1
    elif not start and any(i < middle for i in compared):
        start = 1 + max(i for i in compared if i < middle)
        while q.at(start) in words.SKIPPED_AFTER_COMPARATIVE:
            start += 1
    elif not start and not (q.named(0) and q.at(end + 1) in words.ASKING):  # "A or B, which is older?"
        return []
    start += q.at(start) == "either"
    sides = [(start, before), (middle + 1, end)]
    if not all(q.content_words(*side) for side in sides):
        return []
    if all(q.opens_with_name(*side) for side in sides):
        return sides
    # Without capitals "singers or dancers" looks like two names: only a comparative tells.
    described = all(q.at(start) in words.DETERMINERS for start, _ in sides)  # "the author of A or the ..."
    return sides if compared and (described or not any(q.names(*side) for side in sides)) else []


def _joint(q: _Question, *, compared: bool) -> int:
    """The position of the "or" (or of the "and" in "first of A and B") between two sides; 0 for none."""
    ors = [i for i in range(1, len(q) - 1) if q.lower[i] == "or"]
    if ors:
        return ors[-1]
    opened = q.until(0, words.PAIR_OPENS)
    ands = [i for i in range(opened + 2, len(q) - 1) if q.lower[i] == "and"]
    return ands[0] if compared and len(ands) == 1 else 0


def _name_end(q: _Question, start: int, end: int) -> int:
    """Where the name that opens a side ends, since the rest is the question ("B | famous"); `end` for no name."""
    named = [i for i in range(start, end) if q.named(i)]
    if not named or not q.opens_with_name(start, end):
        return end
    between = (i for i in range(named[0], named[-1]) if not q.named(i) and not q.inside_name(i))
    return next((i for i in between if q.lower[i] not in words.DETERMINERS), named[-1] + 1)


def _questions(q: _Question) -> list[Span]:
    """Two whole questions joined by "and": "..., and when did ...?"."""
    if q.at(0) not in words.OPENS | words.PREPOSITIONS:
        return []
    for i in range(3, len(q) - 2):
        asking = i + 1 + (q.at(i + 1) in words.PREPOSITIONS)  # "and in which ..."
        asks = q.at(asking) in words.ASKING
        if q.lower[i] != "and" or not asks or q.at(i - 1) in words.ASKING or q.inside_name(i):
            continue
        if q.content_words(0, i) > 1 and q.content_words(i + 1, len(q)):
            return [(0, i), (i + 1, len(q))]
    return []


def _alike(q: _Question) -> list[Span]:
    """Both sides of "Are A and B both ...?" and "What do A and B have in common?"; the sides alone."""
    ands = [i for i in range(1, len(q) - 1) if q.lower[i] == "and"]
    if len(ands) % 2 == 0:  # "A and B and C" has no unambiguous middle
        return []
    middle = ands[len(ands) // 2]
    start = middle
    while start and q.at(start - 1) not in words.SIDE_ENDS:
        if q.at(start - 1) in words.PREPOSITIONS and not q.inside_name(start - 1):
            break
        start -= 1
    end = _name_end(q, middle + 1, q.until(middle + 1, words.SIDE_ENDS))
    sides = [(start, middle), (middle + 1, end)]
    plural = q.at(0) in words.PLURAL_AUXILIARY
    beside = q.at(start - 1) == "both" or (q.at(end) == "both" and (plural or q.cased))
    said = any(word in words.ALIKE - {"both"} for word in q.lower[end:])
    plural = plural and all(b - a > 1 for a, b in sides)  # not "Are Trinidad and Tobago islands?"
    return sides if (beside or said or plural) and all(q.content_words(*side) for side in sides) else []


def _chain(q: _Question) -> list[Span]:
    """The pieces of a question that asks through another: "the spouse of | the man who ...", innermost first."""
    places = [0, *dict.fromkeys(_cuts(q)), len(q)]
    pieces = [(start, end) for start, end in itertools.pairwise(places) if start < end]
    needed = 3 if q.cased else 2  # content words of a piece without a name
    parts = [piece for piece in pieces if q.names(*piece) or q.content_words(*piece) >= needed]
    return parts[::-1] if len(pieces) > 1 else []


def _cuts(q: _Question) -> Iterator[int]:
    """Where a piece begins: at a clause's noun, at "of | the author of", at "... what" of a question put last."""
    asked = q.at(0) in words.OPENS or (q.at(0) in words.PREPOSITIONS and q.at(1) in words.ASKING)
    place = reached = 0
    for i in range(2 if q.at(0) in words.PREPOSITIONS else 1, len(q) - 1):
        if q.inside_name(i) or q.at(i - 1) in ("and", "or"):
            continue
        if q.lower[i] in words.RELATIVE and (asked or q.lower[i] == "that"):
            place = _noun_before(q, i)
        elif q.lower[i] in words.ASKING and not asked:
            place = i - (q.at(i - 1) in words.PREPOSITIONS)
        elif q.lower[i] == "of" and q.at(i + 1) in words.DETERMINERS and not q.named(i + 2):
            place = i + 1
        if place > reached:
            reached = place
            yield place


def _noun_before(q: _Question, relative: int) -> int:
    """Where the noun phrase before a relative pronoun begins, the determiner included."""
    end = relative - (q.at(relative - 1) in words.PREPOSITIONS)  # "the works at | which"
    lowest = max(end - _HEAD_WORDS, 1)
    for i in range(end, lowest, -1):
        if q.at(i) in words.DETERMINERS or q.at(i - 1) in words.NOUN_STARTS_AFTER:
            return i
    return lowest


class SplitRule(NamedTuple):
    """One way in which a question consists of parts."""

    name: str
    split: Callable[[_Question], list[Span]]
    example: str
    parts: tuple[str, ...]  # of the example
    counterexample: str  # looks like the example, but no rule splits it


RULES = (
    SplitRule(
        "alternatives",
        _alternatives,
        example="Which bridge is longer, the Lindal Bridge or Ostra Crossing?",
        parts=("the Lindal Bridge", "Ostra Crossing"),
        counterexample="Which singer wrote Truth or Dare?",
    ),
    SplitRule(
        "questions",
        _questions,
        example="Who designed the Ostra tram, and when did it open?",
        parts=("Who designed the Ostra tram", "when did it open"),
        counterexample="Who knows when and where the tram stopped?",
    ),
    SplitRule(
        "alike",
        _alike,
        example="Are Mira Holt and Jan Verro both painters?",
        parts=("Mira Holt", "Jan Verro"),
        counterexample="Did Pride and Prejudice win both prizes?",
    ),
    SplitRule(
        "chain",
        _chain,
        example="Who is the spouse of the actor who played Captain Brill in Night Harbour?",
        parts=("the actor who played Captain Brill in Night Harbour",),
        counterexample="Who sang The Days That Changed Ostra?",
    ),
)


def decompose(query: str, *, max_parts: int = 3) -> tuple[str, ...]:
    """The sub-queries of a multi-part question, the one to be answered first in front; () if there are none.

    Parts are substrings of the query. None is empty, a single stop word or the whole query, and none occurs twice
    (ignoring case).

    Args:
        query: a question, in any case; capitals help to see names.
        max_parts: at most so many sub-queries.

    Raises:
        ValueError: max_parts is below 1.
    """
    if max_parts < 1:
        raise ValueError(f"max_parts is {max_parts}; it must be at least 1")
    question = _Question(normalise_query(query))
    for rule in RULES:
        parts: dict[str, str] = {}
        for part in map(question.slice, rule.split(question)):
            parts.setdefault(part.casefold(), part)
        useless = {"", question.text.casefold()} | words.STOP_WORDS
        useful = [part for key, part in parts.items() if key not in useless]
        if useful:
            return tuple(useful[:max_parts])
    return ()
