"""Pairs of texts as rows of token ids, each text tokenised once.

Most tokenizers encode the two texts of a pair separately, cut them, and add special tokens around them. So a passage
among many queries' candidates is tokenised once and joined with each query's ids; tests compare the rows with the
tokenizer's own, for each architecture. A tokenizer that does anything else with a pair encodes every pair as a whole.

An input longer than max_length loses tokens at the end of its longer side until it fits, as in transformers and
sentence-transformers ("longest_first"): only the passage is cut, unless the query side fills more than half of the
input. `overflow` counts the tokens that are cut off.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rerank_core.errors import MissingEngine, ModelError
from rerank_core.text import shorten, slices

try:
    from tokenizers import Encoding, Tokenizer
except ImportError as error:
    raise MissingEngine(f"scoring needs tokenizers ({error}): pip install 'nightrank[cpu]'") from error

CACHE_TOKENS = 8_000_000
"""Most cached tokens, 32 MB; the oldest texts are dropped."""

TEXT_COSTS = 64
"""Memory of a cached text beside its tokens, in tokens: its key and objects, about 250 bytes."""

SLICE, BATCH = 50_000, 500_000
"""Characters of a long text, and of all texts, that are tokenised at a time."""

_PROBES = (("a", "b"), ("a b c", "b"), ("", "c b a"))


class Row(NamedTuple):
    """One input of a model."""

    ids: np.ndarray  # int32 [tokens]
    types: np.ndarray  # int8 [tokens]: 1 for the passage's, if the model distinguishes the sides


class Template(NamedTuple):
    """The special tokens before, between and after the two texts of a pair, and the types of all five parts."""

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    types: tuple[int, int, int, int, int]

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def join(self, first: np.ndarray, second: np.ndarray) -> Row:
        parts = (self.before, first, self.between, second, self.after)
        types = np.repeat(np.array(self.types, np.int8), [len(part) for part in parts])
        return Row(np.concatenate(parts), types)


class PairEncoder:
    """Turns (query side, passage side) pairs into rows. Safe to share between threads.

    Args:
        tokenizer: without truncation and padding, as from `load_tokenizer`.
        max_length: longest row in tokens, special tokens included.
        cache_tokens: most tokens to cache, including TEXT_COSTS for each text.
        prompt: text before each query.
        side: where a text that is too long is cut, "right" or "left".
        vocabulary: number of ids that the model has; 0 if as many as the tokenizer.

    Raises:
        ValueError: a max_length that leaves no room for two texts.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        cache_tokens: int = CACHE_TOKENS,
        prompt: str = "",
        side: str = "right",
        vocabulary: int = 0,
    ) -> None:
        self._tokenizer, self._max_length, self._cache_tokens = tokenizer, max_length, cache_tokens
        self._prompt, self._side = prompt, side
        self._special = tokenizer.num_special_tokens_to_add(is_pair=True)
        if max_length < self._special + 2:
            raise ValueError(
                f"max_length is {max_length}; two texts and {self._special} special tokens need more"
            )
        self._template = template_of(tokenizer)
        self._special_ids = special_ids(tokenizer, vocabulary=vocabulary)
        self._cache: dict[bytes, np.ndarray] = {}
        self._cached_tokens = 0
        self._lock = threading.Lock()

    def spare_ids(self) -> list[int]:
        """Ids of special tokens that no row contains."""
        own = self.encode([_PROBES[0]])[0].ids.tolist()
        return [int(number) for number in self._special_ids.ids if number not in own]

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """A row for each pair, in order, none longer than max_length."""
        pairs = self._prompted(pairs)
        if self._template is None:
            return self._whole(pairs)
        texts = self._read(pairs)
        rows = []
        for query, passage in pairs:
            first, second = texts[query], texts[passage]
            n, m = cut(len(first), len(second), room=self._max_length - self._special)
            rows.append(self._template.join(self._end(first, n), self._end(second, m)))
        return rows

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair beyond max_length, which are cut off: int32, shape [len(pairs)]."""
        pairs = self._prompted(pairs)
        if self._template is None:
            lengths = [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(pairs))]
        else:
            texts = self._read(pairs)
            lengths = [len(texts[q]) + len(texts[p]) + self._special for q, p in pairs]
        return np.maximum(np.array(lengths, np.int32) - self._max_length, 0, dtype=np.int32)

    def _prompted(self, pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        return [(self._prompt + query, passage) for query, passage in pairs] if self._prompt else pairs

    def _end(self, ids: np.ndarray, length: int) -> np.ndarray:
        """The ids that remain of a text that is cut to a length."""
        return ids[:length] if self._side == "right" else ids[len(ids) - length :]

    def _read(self, pairs: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
        """The ids of every text of the pairs, without special tokens, from the cache or computed now."""
        keys = {text: _key(text) for pair in pairs for text in pair}
        with self._lock:
            cached = {text: self._cache.get(key) for text, key in keys.items()}
        missing = [text for text, ids in cached.items() if ids is None]
        fresh = {
            text: self._without_special(ids) for text, ids in zip(missing, self._ids(missing), strict=True)
        }
        with self._lock:
            for text, ids in fresh.items():
                if keys[text] not in self._cache:
                    self._cache[keys[text]] = ids
                    self._cached_tokens += len(ids) + TEXT_COSTS
            while self._cached_tokens > self._cache_tokens and self._cache:
                self._cached_tokens -= len(self._cache.pop(next(iter(self._cache)))) + TEXT_COSTS
        return {text: fresh[text] if ids is None else ids for text, ids in cached.items()}

    def _ids(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """The ids of each text, in order."""
        parts = [(number, part) for number, text in enumerate(texts) for part in slices(text, SLICE)]
        ids: list[list[np.ndarray]] = [[] for _ in texts]
        read = few_at_a_time(
            lambda batch: self._tokenizer.encode_batch_fast(batch, add_special_tokens=False),
            [part for _, part in parts],
        )
        for (number, _), encoding in zip(parts, read, strict=True):
            ids[number].append(np.array(encoding.ids, np.int32))
        return (np.concatenate(of_text) for of_text in ids)

    def _whole(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """Rows of pairs that the tokenizer encodes as a whole."""
        # A copy: truncation is a state of the tokenizer, which threads share.
        cutting = Tokenizer.from_str(self._tokenizer.to_str())
        cutting.enable_truncation(self._max_length, strategy="longest_first", direction=self._side)
        rows = []
        for encoding in cutting.encode_batch_fast(list(pairs)):
            ids = np.array(encoding.ids, np.int32)
            own = np.array([side is None for side in encoding.sequence_ids])
            rows.append(
                Row(np.where(own, ids, self._without_special(ids)), np.array(encoding.type_ids, np.int8))
            )
        return rows

    def _without_special(self, ids: np.ndarray) -> np.ndarray:
        """A text's ids without special tokens: a text must not be able to end its side of the input.

        Ids are replaced, not characters, since tokenizers normalise "＜s＞" and the like in their own ways.
        """
        special = np.isin(ids, self._special_ids.ids)
        return (
            np.where(special, self._special_ids.replacement, ids).astype(np.int32) if special.any() else ids
        )


def few_at_a_time(
    encode: Callable[[list[str]], Iterable[Encoding]], texts: Sequence[str]
) -> Iterator[Encoding]:
    """The encoding of each text, in order; of about BATCH characters at a time, as it takes 100 times their memory."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH:
            yield from encode(batch)
            batch, size = [], 0
    yield from encode(batch)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class SpecialIds(NamedTuple):
    """Ids of special tokens, which no text may contain, and the id that replaces them."""

    ids: np.ndarray  # int32
    replacement: int


def special_ids(tokenizer: Tokenizer, *, vocabulary: int = 0) -> SpecialIds:
    """A tokenizer's special tokens without the tags, which `rerank_core.features.render` guards.

    Many models have the tags among their special tokens.

    Args:
        tokenizer: of the model.
        vocabulary: number of ids that the model has, if fewer than the tokenizer: those beyond are replaced too.
    """
    tags = re.compile(r"\[(?:HOP|ROLE|ENT|CAUSAL|REASONING)\b", re.IGNORECASE)
    special = {
        token.content: number
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if token.special and not tags.match(token.content)
    }
    unknown = next((special.pop(name) for name in ("[UNK]", "<unk>") if name in special), None)
    if unknown is None:  # a byte-level tokenizer has none; a space means the least
        unknown = next(iter(tokenizer.encode(" .", add_special_tokens=False).ids), 0)
    beyond = [n for n in tokenizer.get_added_tokens_decoder() if n >= vocabulary > 0]
    return SpecialIds(np.array(sorted({*special.values(), *beyond}), np.int32), unknown)


def cut(first: int, second: int, *, room: int) -> tuple[int, int]:
    """Lengths to which two texts are cut to fit in `room`: first the longer one, to the other's length.

    The rule of the tokenizers library, so that rows equal those of other libraries.
    """
    if first + second <= room:
        return first, second
    short, long = min(first, second), max(first, second)
    if 2 * short <= room:
        long = room - short
    else:
        short, long = room // 2, room - room // 2
    return (short, long) if first <= second else (long, short)


def template_of(tokenizer: Tokenizer) -> Template | None:
    """The special tokens around a pair's texts; None if the tokenizer does anything else with a pair."""
    template: Template | None = None
    for pair in _PROBES:
        halves = [np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int32) for text in pair]
        encoding = tokenizer.encode(*pair)
        if template is None:
            template = _template(encoding)
            if template is None:
                return None
        row = template.join(*halves)
        if row.ids.tolist() != encoding.ids or row.types.tolist() != encoding.type_ids:
            return None
    return template


def _template(encoding: Encoding) -> Template | None:
    """The template by one encoded pair of non-empty texts."""
    side = encoding.sequence_ids  # 0 and 1 for the texts, None for special tokens
    if 0 not in side or 1 not in side or side.index(0) > side.index(1):
        return None
    first, second = side.index(0), side.index(1)
    first_end, second_end = first + side.count(0), second + side.count(1)
    ids, types = np.array(encoding.ids, np.int32), encoding.type_ids
    spans = [
        (0, first),
        (first, first_end),
        (first_end, second),
        (second, second_end),
        (second_end, len(ids)),
    ]
    of_part = tuple(types[start] if start < end else 0 for start, end in spans)
    before, _, between, _, after = (ids[start:end] for start, end in spans)
    return Template(before, between, after, of_part)  # type: ignore[arg-type]


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, without truncation and padding; see `open_tokenizer`."""
    return unlimited(open_tokenizer(path))


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, as it is there.

    Raises:
        ModelError: no such file, or not one of the tokenizers library.
    """
    if not path.is_file():
        raise ModelError(
            f"no {path}; make it once with transformers: "
            f"AutoTokenizer.from_pretrained('{path.parent}').save_pretrained('{path.parent}')"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path} is not a tokenizer ({shorten(str(error))}); copy it again") from error


def unlimited(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without truncation and padding; it is changed in place."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
