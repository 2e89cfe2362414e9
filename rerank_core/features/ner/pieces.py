"""Long texts in pieces, and pieces in groups, so that a recogniser's memory does not follow one text or their number.

Memory follows words, not characters: "a b c" has twice as many to the character as prose, a row of commas five times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

LONGEST = 50_000
"""Characters of a piece, and so of a text that is read as one."""

MOST_WORDS = 20_000
"""Words of a piece, marks of punctuation counted; prose has half as many in LONGEST characters."""

LONGEST_WORD = 500
"""ASCII characters and marks without white space: spaCy's tokenizer takes minutes for a row of 50,000 commas."""

_WORD = re.compile(r"[^\W_]+|\S")
_UNBROKEN = re.compile(rf"(?:[!-~]|[^\w\s]){{{LONGEST_WORD}}}")  # other letters may need no spaces (Chinese)


def cut(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of pieces that join up to the text, cut at white space where there is any.

    A piece has at most LONGEST characters and MOST_WORDS words, and ends with an unbroken LONGEST_WORD characters.
    """
    start = 0
    while start < len(text):
        end = _end(text, start)
        yield start, end
        start = end


def words(text: str) -> int:
    """How many words a text has, marks of punctuation counted: about as many as a tokenizer makes of it."""
    return sum(1 for _ in _WORD.finditer(text))


def groups(sizes: Sequence[int], *, most: int, rows: int | None = None) -> Iterator[range]:
    """Ranges of neighbours whose sizes add up to at most `most` (one may exceed it alone), at most `rows` of them."""
    start = total = 0
    for i, size in enumerate(sizes):
        if i > start and (total + size > most or i - start == rows):
            yield range(start, i)
            start, total = i, 0
        total += size
    if sizes:
        yield range(start, len(sizes))


def _end(text: str, start: int) -> int:
    """Where the piece that begins at `start` ends."""
    end = min(start + LONGEST, len(text))
    if long := _UNBROKEN.search(text, start, end):
        end = long.end()
    for count, word in enumerate(_WORD.finditer(text, start, end)):
        if count == MOST_WORDS:
            end = word.start()
            break
    if end == len(text) or (long and end == long.end()):
        return end
    space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
    return space + 1 if space > start else end
