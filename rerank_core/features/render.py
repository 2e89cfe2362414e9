"""The model's input: `[HOP:n] [ROLE:r] [ENT:a,b] [CAUSAL] [REASONING] query [SEP] passage`.

Only this module writes tags. Whatever looks like a tag in a query or a document gets round brackets, so that nobody
can forge one: a page with "[HOP:0]" in its text gains nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from rerank_core.features.tags import input_tags
from rerank_core.text import clean, remembered
from schemas.tags import Tags

_VALUED = "|".join(tag.label for tag in input_tags().values() if tag.has_value)
_BARE = "|".join(tag.label for tag in input_tags().values() if not tag.has_value)
# Matched on the folded text, in which tokenizers' own foldings are done: full-width and accented letters,
# other forms of brackets and colons, characters that a normaliser drops.
_TAG_LIKE = re.compile(
    rf"\[\s*(?:(?:{_VALUED.lower()})\s*:[^\[\]]*\]?|(?:{_BARE.lower()}|sep|cls|pad|unk|mask)\s*\])"
)
_HEAD = re.compile(rf"(?:\[(?:(?:{_VALUED}):[^\[\]]*|{_BARE})\] ?)+")
_BRACKET = re.compile("[\\[\uff3b\ufe47\u27e6\u301a]")
_FOLDED_BRACKETS = str.maketrans("\u27e6\u301a\u27e7\u301b", "[[]]")


class Rendered(NamedTuple):
    """Both sides of the model's input; the tokenizer puts its separator between them."""

    query: str
    passage: str

    @property
    def text(self) -> str:
        return f"{self.query} [SEP] {self.passage}"


def special_tokens() -> tuple[str, ...]:
    """The rendered tags that have a closed set of values: a tokenizer should know each as one token."""
    return tuple(form for tag in input_tags().values() for form in tag.forms if form)


def render_tags(tags: Tags | None) -> str:
    """The tags as text; "" for None. Tags that do not apply are left out."""
    if tags is None:
        return ""
    parts = (tag.render(getattr(tags, name)) for name, tag in input_tags().items())
    return " ".join(filter(None, parts))


def render(query: str, passage: str, tags: Tags | None = None) -> Rendered:
    """The model's input for one pair; without tags, the escaped texts alone."""
    return with_tags(render_tags(tags), query, passage)


def with_tags(head: str, query: str, passage: str) -> Rendered:
    """The model's input for one pair whose tags are rendered already; "" for none."""
    return Rendered(f"{head} {escape(query)}".lstrip(), escape(passage))


def split_tags(query_side: str) -> tuple[str, str]:
    """(rendered tags, query) of a rendered query side. The query is escaped, so it cannot begin with a tag."""
    match = _HEAD.match(query_side)
    end = match.end() if match else 0
    return query_side[:end].rstrip(), query_side[end:]


@remembered
def escape(text: str) -> str:
    """`text` cleaned, with round brackets around whatever looks like a tag or a tokenizer's special token."""
    text = clean(text)
    if not _BRACKET.search(text):
        return text
    folded, origin = _fold(text)
    characters = list(text)
    for match in _TAG_LIKE.finditer(folded):  # only brackets change, which makes no new tag
        characters[origin[match.start()]] = "("
        if match.group().endswith("]"):
            characters[origin[match.end() - 1]] = ")"
    return "".join(characters)


def _fold(text: str) -> tuple[str, Sequence[int]]:
    """`text` as the most forgiving tokenizer reads it, and for each character its index in `text`."""
    if text.isascii():
        return text.lower(), range(len(text))
    pieces = [
        (index, piece)
        for index, character in enumerate(text)
        for piece in unicodedata.normalize("NFKD", character).casefold().translate(_FOLDED_BRACKETS)
        if unicodedata.category(piece)[0] not in "MC"  # marks, control, format, private use: dropped
    ]
    return "".join(piece for _, piece in pieces), [index for index, _ in pieces]


def passage_text(title: str, text: str) -> str:
    """Title and text as one passage, as BEIR joins them; a title that the text begins with is not repeated."""
    return text if not title or text.startswith(title) else f"{title} {text}"
