"""Cleaning of text from users and documents before anything else reads it, and the form in which texts are compared."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator

from rerank_core.redact import redact

# Control characters other than white space, format characters and surrogates: a reader does not see them, and they
# could carry a forged tag or a NUL past a check. Zero-width joiners too: tokenizers drop them anyway.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# What Unicode's compatibility forms leave of characters that do not count in a comparison: variation selectors,
# fillers and the grapheme joiner.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SPACE = re.compile(r"\s+")
_EDGE_PUNCTUATION = " ?!.,;:"


LONGEST_REMEMBERED, REMEMBERED = 4_000, 4_096
"""Characters of a text whose forms are remembered, and number of texts, for each form: 6 MB of usual passages."""


def remembered(form: Callable[[str], str]) -> Callable[[str], str]:
    """`form`, remembered for texts of usual length: every stage takes the same passages through it, for each query."""
    cached = functools.lru_cache(REMEMBERED)(form)

    @functools.wraps(form)
    def call(text: str) -> str:
        return cached(text) if len(text) <= LONGEST_REMEMBERED else form(text)

    return call


def clean(text: str) -> str:
    """Drop invisible characters and fold white space; visible characters are unchanged."""
    if text.isascii() and text.isprintable():  # usual, and ten times as fast
        return " ".join(text.split())
    return _SPACE.sub(" ", _INVISIBLE.sub("", text)).strip()


def normalise_query(text: str) -> str:
    """Map spellings of one query to one text: Unicode NFC, white space, punctuation at both ends.

    Case is kept: HOP and ENT recognise names by it. `query_id` ignores it.
    """
    # NFC comes after cleaning: a dropped character may have separated a letter and its accent.
    return unicodedata.normalize("NFC", clean(text)).strip(_EDGE_PUNCTUATION)


@remembered
def fold(text: str) -> str:
    """The form in which texts are compared, the same for all spellings of a text that a reader takes for one.

    Those are its Unicode normal forms (composed, decomposed, presentation forms, half and full width), its cases, and
    characters that are not seen. Take both sides of every comparison through it; what is shown or published stays as
    it is.
    """
    text = clean(text)
    if text.isascii():
        return text.lower()
    # Unicode's compatibility caseless match (D146). Some letters' decompositions have a case of their own.
    decomposed = unicodedata.normalize("NFD", text).casefold()
    decomposed = unicodedata.normalize("NFKD", decomposed).casefold()
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", _IGNORABLE.sub("", decomposed))).strip()


def query_id(text: str) -> str:
    """Id of a query: 16 hex digits of the SHA-256 of its normalised, case-folded text."""
    return fingerprint(normalise_query(text).casefold())[:16]


def fingerprint(*parts: str) -> str:
    """Hex SHA-256 over the parts and their lengths, so that ("ab", "c") differs from ("a", "bc")."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def shorten(text: str, *, limit: int = 200) -> str:
    """At most `limit` characters of `text` for an error message, without secrets; with the length of a longer one."""
    visible = clean(redact(text))
    return visible if len(visible) <= limit else f"{visible[:limit]}... ({len(text)} characters)"


def utf8(text: str) -> str:
    """`text` without lone surrogates, which JSON can express ("\\ud800") but UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "ignore").decode()


def slices(text: str, size: int) -> Iterator[str]:
    """Parts that join up to the text, of at most `size` characters each.

    A part ends before white space where it has any: what tokenizers make of a word depends on the white space before
    it, and on nothing before that.
    """
    start = 0
    while (end := start + size) < len(text):
        gaps = (i for i in range(end, start, -1) if text[i].isspace() and not text[i - 1].isspace())
        end = next(gaps, end)
        yield text[start:end]
        start = end
    yield text[start:]
