"""From the label of each token to mentions, for token-classification models on any engine.

Words are the tokenizer's own (its word ids), also split at white space, since some tokenizers take a whole text for one
word. A word's first token decides its label (transformers' aggregation_strategy="first"), because that is the token
whose label these models were trained on; a later token may cut a name in two. One deviation: where a word mixes
punctuation with letters ("(NASA)," is one word to SentencePiece), its first token that is not punctuation decides, and
punctuation at a mention's ends is trimmed. Words of BERT and of byte-level BPE never mix them, so that such models
give the same mentions as in transformers.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from rerank_core.errors import ModelError
from rerank_core.text import shorten
from schemas.records import Mention

TOKENS_VERSION = "2"
"""Raise with every change that can alter a mention: it is part of the recognisers' fingerprints."""

TYPES = {
    **dict.fromkeys(("per", "pers", "person"), "PER"),
    **dict.fromkeys(("org", "organization", "organisation", "corporation", "group"), "ORG"),
    **dict.fromkeys(("loc", "location", "gpe", "fac", "facility", "geo"), "LOC"),
    **dict.fromkeys(("misc", "miscellaneous", "norp", "product", "event", "work-of-art"), "MISC"),
    **dict.fromkeys(("law", "language", "creative-work"), "MISC"),
}
"""A model's entity type (CoNLL, OntoNotes, WNUT), in lower case with hyphens -> one of LABELS.

Other types are dropped: OntoNotes' dates, times and numbers name nothing that two passages could share.
"""

# BIO, IOB1, BILOU (Last, Unit), BIOES (End, Single), BMEWO (Middle, Whole).
_SCHEME = re.compile(r"([BIMLEUSW])[-_](.+)", re.DOTALL)
_SPACE = re.compile(r"\s")


class Tag(NamedTuple):
    """One of a model's labels."""

    kind: str  # the model's own type; words of one mention share it
    label: str  # one of LABELS, or "" for a type that is dropped
    opens: bool = False  # a mention always starts here
    closes: bool = False  # the mention always ends here


class Encoded(Protocol):
    """A tokenised text without special tokens, such as a `tokenizers.Encoding`."""

    @property
    def ids(self) -> list[int]: ...

    @property
    def offsets(self) -> list[tuple[int, int]]: ...

    @property
    def word_ids(self) -> list[int | None]: ...


class Word(NamedTuple):
    """A run of tokens that get one label."""

    start: int  # in characters, white space trimmed; == end where a word is white space alone
    end: int
    first: int  # its first token
    decides: int  # the token whose label is the word's


def read_tags(id2label: object, *, source: str) -> tuple[Tag, ...]:
    """A model's labels, by id.

    Args:
        id2label: of a model's config.json.
        source: the model, for error messages.

    Raises:
        ModelError: no labels, ids that are not 0, 1, ..., or no label whose type is in TYPES.
    """
    if not isinstance(id2label, dict) or not id2label:
        raise ModelError(
            f"{source} has no labels; take a token-classification model, with id2label in its config.json"
        )
    by_id = {str(key): str(value) for key, value in id2label.items()}
    ids = [str(i) for i in range(len(by_id))]
    if set(by_id) != set(ids):
        raise ModelError(f"{source}: the ids of id2label are {', '.join(by_id)}; number them from 0")
    tags = tuple(read_tag(by_id[i]) for i in ids)
    if not any(tag.label for tag in tags):
        raise ModelError(
            f"{source} has no label for persons, organisations, places or other names: "
            f"{shorten(', '.join(by_id[i] for i in ids), limit=400)}. Take a named-entity model, or set its "
            f"id2label to types among {', '.join(TYPES)}"
        )
    return tags


def read_tag(label: str) -> Tag:
    """Parse a label. One without a prefix ("PER") continues a mention of its type, as "I-PER" does."""
    match = _SCHEME.fullmatch(label)
    prefix, kind = (match[1], match[2]) if match else ("I", label)
    known = TYPES.get(re.sub(r"[\s_]", "-", kind.casefold()), "")
    return Tag(kind, known, opens=prefix in "BUSW", closes=prefix in "LEUSW")


def group_words(text: str, encoded: Encoded) -> list[Word]:
    """Words of a text, in order; each token belongs to one."""
    spans = [_trim_space(text, *offset) for offset in encoded.offsets]
    groups: list[list[int]] = []
    before: int | None = None
    for i, word_id in enumerate(encoded.word_ids):
        same = word_id is not None and word_id == before
        # Offsets of bytes of one character are equal, so that the gap can be empty or negative.
        if groups and same and not _SPACE.search(text[spans[i - 1][1] : spans[i][0]]):
            groups[-1].append(i)
        else:
            groups.append([i])
        before = word_id
    return [_word(text, spans, tokens) for tokens in groups]


def _word(text: str, spans: Sequence[tuple[int, int]], tokens: Sequence[int]) -> Word:
    start, end = min(spans[i][0] for i in tokens), max(spans[i][1] for i in tokens)
    others = (i for i in tokens if not _is_punctuation(text[slice(*spans[i])]))
    return Word(start, end, tokens[0], tokens[0] if len(tokens) == 1 else next(others, tokens[0]))


def find_mentions(text: str, words: Sequence[Word], tags: Sequence[Tag]) -> tuple[Mention, ...]:
    """Mentions in a text.

    Args:
        text: the text.
        words: its words, in order.
        tags: of each word.

    Returns:
        Mentions with at least a letter or a digit; they do not overlap, and are in the text's order.
    """
    visible = [(word, tag) for word, tag in zip(words, tags, strict=True) if word.start < word.end]
    mentions = []
    for first, last, label in _runs([tag for _, tag in visible]):
        start, end = _trim_punctuation(text, visible[first][0], visible[last][0])
        if any(char.isalnum() for char in text[start:end]):
            mentions.append(Mention(text[start:end], label, start, end))
    return tuple(mentions)


def _runs(tags: Sequence[Tag]) -> Iterator[tuple[int, int, str]]:
    """(first word, last word, label) of each run of words that is one mention."""
    first = 0
    for i in range(1, len(tags) + 1):
        last = i == len(tags) or tags[i].opens or tags[i - 1].closes
        if last or tags[i].kind != tags[i - 1].kind:
            if tags[first].label:
                yield first, i - 1, tags[first].label
            first = i


def _trim_space(text: str, start: int, end: int) -> tuple[int, int]:
    """The part of text[start:end] without white space at its ends: byte-level BPE includes the space before."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _trim_punctuation(text: str, first: Word, last: Word) -> tuple[int, int]:
    """Start and end of a mention, without punctuation that belongs to a word only because of the tokenizer.

    A word of punctuation alone has a label of its own, and stays ("Yahoo" "!").
    """
    start, end = first.start, last.end
    if not _is_punctuation(text[first.start : first.end]):
        while _is_mark(text[start]):
            start += 1
    if not _is_punctuation(text[last.start : last.end]):
        while _is_mark(text[end - 1]):
            end -= 1
    return start, end


def _is_punctuation(text: str) -> bool:
    """Whether a text is punctuation alone; an empty one is not."""
    return bool(text) and not text.isalnum() and all(map(_is_mark, text))


@lru_cache(maxsize=4096)
def _is_mark(char: str) -> bool:
    """Whether BERT's tokenizer takes a character for punctuation."""
    return char in string.punctuation or unicodedata.category(char).startswith("P")
