"""The model's input: `[HOP:n] [ROLE:r] [ENT:a,b] [CAUSAL] [REASONING] query [SEP] passage`.

Only this module writes tags. Whatever in a user's query or a document looks like a tag gets round brackets,
so that nobody can forge one: a page that says "[HOP:0]" of itself gains nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from rerank_core.features.role import ROLES
from rerank_core.text import clean
from schemas.records import HOP_UNREACHABLE, Tags

# Matched on the folded text, in which tokenizers' own foldings are done: full-width and accented letters,
# other forms of brackets and colons, characters that a normaliser drops.
_TAG_LIKE = re.compile(
    r"\[\s*(?:(?:hop|role|ent)\s*:[^\[\]]*\]?|(?:causal|reasoning|sep|cls|pad|unk|mask)\s*\])"
)
_HEAD = re.compile(r"(?:\[(?:HOP:-?\d+|ROLE:\w+|ENT:[^\[\]]*|CAUSAL|REASONING)\] ?)+")
_BRACKET = re.compile("[\\[\uff3b\ufe47\u27e6\u301a]")
_FOLDED_BRACKETS = str.maketrans("\u27e6\u301a\u27e7\u301b", "[[]]")
_ENTITY_UNSAFE = re.compile("[\\[\\],\uff3b\uff3d\ufe47\ufe48\u27e6\u301a\u27e7\u301b\uff0c\ufe10\ufe50]+")


class Rendered(NamedTuple):
    """Both sides of the model's input; the tokenizer puts its separator between them."""

    query: str
    passage: str

    @property
    def text(self) -> str:
        return f"{self.query} [SEP] {self.passage}"


def special_tokens(max_hop: int = 3) -> tuple[str, ...]:
    """The closed tags, which a tokenizer should know as single tokens. ENT stays open text."""
    hops = [f"[HOP:{n}]" for n in (HOP_UNREACHABLE, *range(max_hop + 1))]
    return (*hops, *(f"[ROLE:{role}]" for role in ROLES), "[CAUSAL]", "[REASONING]")


def render_tags(tags: Tags | None) -> str:
    """The tags as text; "" for None. Tags that do not apply are left out."""
    if tags is None:
        return ""
    parts = [f"[HOP:{tags.hop}]", f"[ROLE:{tags.role}]"]
    entities = [name for entity in tags.entities if (name := clean(_ENTITY_UNSAFE.sub(" ", entity)))]
    if entities:
        parts.append(f"[ENT:{','.join(entities)}]")
    if tags.causal:
        parts.append("[CAUSAL]")
    if tags.reasoning:
        parts.append("[REASONING]")
    return " ".join(parts)


def render(query: str, passage: str, tags: Tags | None = None) -> Rendered:
    """The model's input for one pair; without tags (plain mode) the escaped texts alone."""
    return with_tags(render_tags(tags), query, passage)


def with_tags(head: str, query: str, passage: str) -> Rendered:
    """The model's input for one pair whose tags are rendered already; "" for plain mode."""
    return Rendered(f"{head} {escape(query)}".lstrip(), escape(passage))


def split_tags(query_side: str) -> tuple[str, str]:
    """(rendered tags, query) of a rendered query side: no query can begin with a tag of its own, being escaped."""
    found = _HEAD.match(query_side)
    end = found.end() if found else 0
    return query_side[:end].rstrip(), query_side[end:]


def escape(text: str) -> str:
    """`text` cleaned, with round brackets around whatever looks like a tag or a tokenizer's special token."""
    text = clean(text)
    if not _BRACKET.search(text):
        return text
    folded, origin = _fold(text)
    characters = list(text)
    for match in _TAG_LIKE.finditer(folded):  # brackets alone change, so none uncovers another
        characters[origin[match.start()]] = "("
        if match.group().endswith("]"):
            characters[origin[match.end() - 1]] = ")"
    return "".join(characters)


def _fold(text: str) -> tuple[str, Sequence[int]]:
    """`text` as the most forgiving tokenizer reads it, and for each character its place in `text`."""
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
    """Title and text as one passage, in BEIR's way; a title that already opens the text is not said twice."""
    return text if not title or text.startswith(title) else f"{title} {text}"
