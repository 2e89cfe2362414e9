"""Reads texts with a token-classification model: windows over long texts, in batches, merged into mentions.

A text longer than the model's input is read in overlapping windows, cut between words, and each word's label comes from
the window where it has the most context. So nothing is truncated, and a mention may span windows. A text longer than
`pieces.LONGEST` is read as several, of which some are in memory at a time.

A text gives the same mentions alone and in any batch. The other rows of a batch change a row's logits in the last
digits only, but where two labels are that close, the row is read again, alone.
"""

from __future__ import annotations

import abc
import re
import threading
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rerank_core.errors import ModelError
from rerank_core.features.ner import pieces
from rerank_core.features.ner.tokens import Encoded, Tag, Word, find_mentions, group_words
from rerank_core.inference.batching import plan_batches
from rerank_core.inference.model_folder import OFFSET_POSITIONS
from rerank_core.text import shorten
from schemas.records import Mention

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CLOSE = 0.01
"""Two logits closer than this may change order with the batch: float32 sums differ by 1e-5 at most."""

MOST_CHARACTERS = 100_000
"""Characters of the texts that are tokenised and labelled together: some 150 bytes for each, and 2 kB at worst."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # which no tokenizer accepts


class WindowRow(NamedTuple):
    """One input of the model."""

    ids: list[int]
    types: list[int]  # token_type_ids


Classify = Callable[[Sequence[list[WindowRow]]], Iterable[Sequence[np.ndarray]]]
"""Batches -> the logits of each batch's rows: [tokens of the row, labels]."""


class Frame(NamedTuple):
    """Special tokens around a text."""

    before: WindowRow
    after: WindowRow
    type: int  # of the text's own tokens

    def around(self, ids: list[int]) -> WindowRow:
        """The model's input for a part of a text."""
        types = [self.type] * len(ids)
        return WindowRow(
            self.before.ids + ids + self.after.ids,
            self.before.types + types + self.after.types,
        )


class Window(NamedTuple):
    """Tokens of a text that the model reads at once."""

    start: int
    end: int


class _Text(NamedTuple):
    """A tokenised text and its windows."""

    text: str
    ids: list[int]
    words: list[Word]
    edges: list[int]
    windows: list[Window]


class Reader:
    """Finds the mentions of texts. Safe to share between threads if `classify` is.

    Args:
        tokenizer: of the model.
        tags: the model's labels, by id.
        classify: runs the model.
        max_length: longest input in tokens, special tokens included.
        max_tokens: most tokens of one batch, padding counted.

    Raises:
        ValueError: a max_length that leaves no room for a text, or max_tokens below 1.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tags: Sequence[Tag],
        *,
        classify: Classify,
        max_length: int,
        max_tokens: int,
    ) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; at least 1 is needed")
        self._tokenizer, self._tags, self._classify = tokenizer, tuple(tags), classify
        self._max_tokens = max_tokens
        self._frame = find_frame(tokenizer)
        special = len(self._frame.before.ids) + len(self._frame.after.ids)
        if max_length <= special:
            raise ValueError(f"max_length is {max_length}; a text and {special} special tokens need more")
        self._room = max_length - special

    def recognise(self, passages: Sequence[tuple[str, str]]) -> list[tuple[Mention, ...]]:
        """Mentions in the text of each (title, text); equal texts are read once.

        Raises:
            ModelError: the model's logits of a passage are no numbers.
        """
        texts = [text for text in dict.fromkeys(text for _, text in passages) if text.strip()]
        parts = [(text, start, end) for text in texts for start, end in pieces.cut(text)]
        found: defaultdict[str, list[Mention]] = defaultdict(list)
        for group in pieces.groups([end - start for _, start, end in parts], most=MOST_CHARACTERS):
            read = self._read([parts[i][0][parts[i][1] : parts[i][2]] for i in group])
            for i, mentions in zip(group, read, strict=True):
                text, offset, _ = parts[i]
                found[text] += [m._replace(start=m.start + offset, end=m.end + offset) for m in mentions]
        return [tuple(found.get(text, ())) for _, text in passages]

    def _read(self, texts: Sequence[str]) -> list[tuple[Mention, ...]]:
        readable = [_SURROGATE.sub("\ufffd", text) for text in texts]
        encodings = self._tokenizer.encode_batch(readable, add_special_tokens=False)
        tokenised = [self._split(text, encoded) for text, encoded in zip(texts, encodings, strict=True)]
        rows = [self._frame.around(text.ids[w.start : w.end]) for text in tokenised for w in text.windows]
        answers = iter(self._label(rows, names=[text.text for text in tokenised for _ in text.windows]))
        mentions = []
        for text in tokenised:
            labels = merge(text.edges, text.windows, [next(answers) for _ in text.windows])
            tags = [self._tags[labels[word.decides]] for word in text.words]
            mentions.append(find_mentions(text.text, text.words, tags))
        return mentions

    def _split(self, text: str, encoded: Encoded) -> _Text:
        words = group_words(text, encoded)
        ids = list(encoded.ids)
        edges = find_edges([word.first for word in words], len(ids), room=self._room)
        return _Text(text, ids, words, edges, plan_windows(edges, self._room))

    def _label(self, rows: Sequence[WindowRow], *, names: Sequence[str]) -> list[np.ndarray]:
        """The label of each token of each row, special tokens left out; `names` are the rows' texts."""
        labels: list[np.ndarray] = [np.zeros(0, np.int64)] * len(rows)
        batches = plan_batches([len(row.ids) for row in rows], self._max_tokens)
        again = list(self._run(batches, rows, names, into=labels))
        for _ in self._run([[i] for i in again], rows, names, into=labels):
            pass
        return labels

    def _run(
        self,
        batches: Sequence[list[int]],
        rows: Sequence[WindowRow],
        names: Sequence[str],
        *,
        into: list[np.ndarray],
    ) -> Iterable[int]:
        """Label the rows of the batches; yields those whose labels may depend on their batch."""
        answers = self._classify([[rows[i] for i in batch] for batch in batches])
        for batch, answer in zip(batches, answers, strict=True):
            for i, logits in zip(batch, answer, strict=True):
                end = len(rows[i].ids) - len(self._frame.after.ids)
                inner = logits[len(self._frame.before.ids) : end]
                if not (inner < np.inf).all():  # NaN is not below infinity; a label masked by -inf is
                    raise ModelError(
                        f"the model's logits are NaN or infinite for the passage {shorten(names[i])!r}; the model "
                        "is damaged, or its half-precision weights overflow: take a float32 model"
                    )
                into[i] = inner.argmax(axis=1)
                if len(batch) > 1 and _is_close(inner):
                    yield i


def find_frame(tokenizer: Tokenizer) -> Frame:
    """The special tokens that a tokenizer adds around a text."""
    whole = tokenizer.encode("a", add_special_tokens=True)
    inner = [i for i, special in enumerate(whole.special_tokens_mask) if not special]
    if not inner:
        raise ModelError(
            "the model's tokenizer.json gives no token for 'a'; copy the file from the model again"
        )
    start, end = inner[0], inner[-1] + 1
    before, after = (
        WindowRow(list(whole.ids[part]), list(whole.type_ids[part]))
        for part in (slice(start), slice(end, None))
    )
    return Frame(before, after, whole.type_ids[start])


def find_edges(firsts: Sequence[int], total: int, *, room: int) -> list[int]:
    """Tokens at which a window may begin or end: the words' first tokens, 0 and `total`.

    A word longer than a quarter of the room has edges inside.
    """
    step = max(1, room // 4)
    ends = [*firsts[1:], total]
    return [i for first, end in zip(firsts, ends, strict=False) for i in range(first, end, step)] + [total]


def plan_windows(edges: Sequence[int], room: int) -> list[Window]:
    """Windows of at most `room` tokens over edges[-1] tokens, neighbours sharing at least a quarter of the room.

    The last window is as full as the others. No tokens give no windows.
    """
    total = edges[-1]
    windows: list[Window] = []
    start = 0
    while total - start > room:
        end = edges[bisect_right(edges, start + room) - 1]
        windows.append(Window(start, end))
        start = edges[bisect_right(edges, end - room // 4) - 1]
    if total:
        windows.append(Window(edges[bisect_left(edges, max(0, total - room))], total))
    return windows


def merge(edges: Sequence[int], windows: Sequence[Window], answers: Sequence[np.ndarray]) -> np.ndarray:
    """Label of each token, from the window with the most context on the shorter side (the earlier, if equal).

    The text's own start and end cut no context off.
    """
    total = edges[-1]
    if len(windows) == 1:
        return answers[0]
    labels = np.zeros(total, np.int64)
    best = np.full(total, -1.0)
    starts, ends = (np.repeat(part, np.diff(edges)) for part in (edges[:-1], edges[1:]))  # of a token's unit
    for (start, end), answer in zip(windows, answers, strict=True):
        left = starts[start:end] - start if start else np.inf
        right = end - ends[start:end] if end < total else np.inf
        context = np.minimum(left, right)
        better = context > best[start:end]
        labels[start:end][better] = answer[better]
        best[start:end][better] = context[better]
    return labels


def _is_close(logits: np.ndarray) -> bool:
    """Whether any token's two highest logits nearly tie."""
    if logits.shape[1] < 2:
        return False
    second, first = np.partition(logits, -2, axis=1)[:, -2:].T
    return bool((first - second < CLOSE).any())


def longest_input(config: dict[str, Any], *, pad_id: int, wanted: int) -> int:
    """`wanted`, lowered to the number of tokens that a model's positions allow: windows cover the rest.

    Unlike a scorer's max_length, at which a passage is truncated, it may be lowered without a warning.
    """
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return wanted
    return min(wanted, positions - (pad_id + 1 if config.get("model_type") in OFFSET_POSITIONS else 0))


_LOCK = threading.Lock()


class TokenRecogniser(abc.ABC):
    """A recogniser that pickles as its settings and fingerprint; its model is loaded at the first passage."""

    _fingerprint: str

    @property
    def fingerprint(self) -> str:
        """Identity of the model's files and of the parameters that decide a mention."""
        return self._fingerprint

    def load(self) -> None:
        """Load the model now, so that errors appear early.

        Raises:
            ModelError: it is no token-classification model, or its files have changed since this was made.
        """
        self._reader()

    def recognise(self, passages: Sequence[tuple[str, str]]) -> list[tuple[Mention, ...]]:
        """Mentions in the text of each (title, text).

        Raises:
            ModelError: as `load`, or the logits of a passage are NaN or infinite; the message names it.
        """
        return self._reader().recognise(passages)

    def _reader(self) -> Reader:
        with _LOCK:
            return self._open()

    @abc.abstractmethod
    def _open(self) -> Reader:
        """The model, loaded once per process for all copies of a recogniser."""
