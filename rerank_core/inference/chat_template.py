"""Pairs as the chat messages of a template: how sentence-transformers gives them to a reranker that has one.

The query is a message of the role "query", the passage one of the role "document", and a prompt a system message before
them. The template is rendered once, around marks, and from then on texts are put between its fixed parts; a template
that does more with a text than trimming it is refused.

An input longer than max_length loses its end (or its beginning, as the tokenizer says), and the tokens after the last
text are written over what is then its end, as in sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from rerank_core.errors import MissingEngine, ModelError
from rerank_core.inference.encoding import Row, SpecialIds, few_at_a_time, special_ids
from rerank_core.inference.model_folder import read_json
from rerank_core.inference.tokenizer_files import NAMED, text_of

_MARKS = ("Qm7xQ", "Dm9yD")
_PROBES = (("a", "b"), ("", ""), (" a ", "\n b\n"), ("a\n\nb?", "<b>'\"&{{ x }}"), ("a" * 99, "b " * 99))
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
_FLAT_TYPES = frozenset({"apertus", "deepseek_v3", "gpt_oss", "seed_oss"})


class ChatTemplate(NamedTuple):
    """The fixed parts around a pair's texts."""

    before: str
    between: str
    after: str
    passage_first: bool = False
    trims: bool = False  # texts lose the white space at their ends

    def render(self, query: str, passage: str) -> tuple[str, list[tuple[int, int]]]:
        """The whole text, and where its two texts begin and end."""
        texts = (passage, query) if self.passage_first else (query, passage)
        first, second = (text.strip() for text in texts) if self.trims else texts
        start = len(self.before) + len(first) + len(self.between)
        spans = [(len(self.before), len(self.before) + len(first)), (start, start + len(second))]
        return f"{self.before}{first}{self.between}{second}{self.after}", spans


def read_chat_template(folder: Path) -> str:
    """The text of a folder's chat template; "" if there is none.

    Raises:
        ModelError: several templates, none of which is the default, or a file that cannot be read.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{file} cannot be read ({error}); copy the folder again") from None
    given = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(given, list):
        given = {one.get("name"): one.get("template") for one in given if isinstance(one, dict)}
    if isinstance(given, dict):
        if "default" not in given:
            raise ModelError(
                f"chat_template in {folder / 'tokenizer_config.json'} has no template called default, only "
                f"{', '.join(map(str, given))}; name one of them default"
            )
        given = given["default"]
    return given if isinstance(given, str) else ""


def parse_template(
    text: str, folder: Path, *, prompt: str, model_type: str = "", form: str = "", options: dict[str, Any]
) -> ChatTemplate | None:
    """The fixed parts of a chat template; None if it does not show a query and a document.

    Args:
        text: the template.
        folder: of the model.
        prompt: a system message; "" for none.
        model_type: of config.json.
        form: "flat" or "structured": what a message's content is; "" finds it.
        options: more variables for the template.

    Raises:
        ModelError: the template does more with a pair than putting its texts between fixed parts.
        MissingEngine: transformers or jinja2 is not installed.
    """
    if not form:
        structured = model_type not in _FLAT_TYPES and any(part in text for part in _STRUCTURED)
        form = "structured" if structured else "flat"
    render = _renderer(text, folder, prompt=prompt, structured=form == "structured", options=options)
    try:
        marked = render(*_MARKS)
        if marked in (render("alpha", _MARKS[1]), render(_MARKS[0], "alpha")):
            return None
    except ImportError as error:  # of jinja2, too, which transformers does not bring
        raise MissingEngine(
            f"the model in {folder} has a chat template, which needs transformers and jinja2 ({error}): pip install "
            "'nightrank[torch]'"
        ) from error
    except Exception:  # whatever a template raises
        return None
    places = [marked.find(mark) for mark in _MARKS]
    if -1 not in places:
        first, second = sorted(range(2), key=lambda i: places[i])
        before, rest = marked.split(_MARKS[first], 1)
        between, after = rest.split(_MARKS[second], 1)
        for trims in (False, True):
            template = ChatTemplate(before, between, after, passage_first=first == 1, trims=trims)
            if all(_same(render, template, pair) for pair in _PROBES):
                return template
    raise ModelError(
        f"the chat template in {folder} does more with a query and a document than putting each once between fixed "
        "parts, which is not supported; use a model with a plainer template"
    )


def _same(render: Callable[[str, str], str], template: ChatTemplate, pair: tuple[str, str]) -> bool:
    try:
        return render(*pair) == template.render(*pair)[0]
    except Exception:  # a template that refuses a text
        return False


def _renderer(
    text: str, folder: Path, *, prompt: str, structured: bool, options: dict[str, Any]
) -> Callable[[str, str], str]:
    tokens = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    variables = {name: content for name in NAMED if (content := text_of(tokens.get(name)))} | options

    def render(query: str, passage: str) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        parts = [("system", prompt)] if prompt else []
        parts += [("query", query), ("document", passage)]
        chat = [
            {"role": role, "content": [{"type": "text", "text": text}] if structured else text}
            for role, text in parts
        ]
        rendered, _ = render_jinja_template(conversations=[chat], chat_template=text, **variables)
        return str(rendered[0])

    return render


class ChatEncoder:
    """Turns (query side, passage side) pairs into rows of a chat template. Safe to share between threads.

    Text that spells a special token, or another token of the template, becomes a token without meaning.

    Args:
        tokenizer: without truncation and padding; it must not be changed afterwards.
        template: around the two texts.
        max_length: longest row in tokens, the template included.
        side: where an input that is too long is cut, "right" or "left".
        vocabulary: as of `PairEncoder`.

    Raises:
        ValueError: a max_length that leaves no room for two texts.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        max_length: int,
        side: str = "right",
        vocabulary: int = 0,
    ) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._max_length, self._side = max_length, side
        own = self._ids(template.render("", "")[0])
        if max_length < len(own) + 2:
            raise ValueError(
                f"max_length is {max_length}; two texts and a template of {len(own)} tokens need more"
            )
        special = structural_ids(tokenizer, own, vocabulary=vocabulary)
        self._special, self._replacement = special
        self._tail = self._find_tail()

    def spare_ids(self) -> list[int]:
        """Ids of special tokens that no row contains."""
        own = self._ids(self._template.render("", "")[0])
        return [int(number) for number in self._special if number not in own]

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """A row for each pair, in order, none longer than max_length."""
        rows = []
        for ids in self._whole(pairs):
            if len(ids) >= self._max_length:
                ids = ids[: self._max_length] if self._side == "right" else ids[len(ids) - self._max_length :]
                ids[len(ids) - len(self._tail) :] = self._tail
            rows.append(Row(ids, np.zeros(len(ids), np.int8)))
        return rows

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair beyond max_length, which its row leaves out: int32, shape [len(pairs)]."""
        lengths = np.array([len(ids) for ids in self._whole(pairs)], np.int32)
        return np.maximum(lengths - self._max_length, 0, dtype=np.int32)

    def _whole(self, pairs: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        """The ids of each pair, uncut."""
        rendered = [self._template.render(query, passage) for query, passage in pairs]
        # encode_batch, not encode_batch_fast, which leaves out the offsets.
        encodings = few_at_a_time(
            lambda batch: self._tokenizer.encode_batch(batch, add_special_tokens=False),
            [text for text, _ in rendered],
        )
        rows = []
        for encoding, (_, spans) in zip(encodings, rendered, strict=True):
            ids = np.array(encoding.ids, np.int32)
            offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            inside = [(offsets[:, 0] >= start) & (offsets[:, 1] <= end) for start, end in spans]
            spelled = np.isin(ids, self._special) & (inside[0] | inside[1])
            rows.append(np.where(spelled, self._replacement, ids).astype(np.int32))
        return rows

    def _find_tail(self) -> np.ndarray:
        """The ids after the last text: those that two inputs of different texts have in common at their ends."""
        one, other = (self._ids(self._template.render(text, text)[0]) for text in ("0", "1 2 3 4"))
        least = min(len(one), len(other))
        differ = np.flatnonzero(one[::-1][:least] != other[::-1][:least])
        count = int(differ[0]) if len(differ) else 0
        return one[len(one) - count :]

    def _ids(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)


def structural_ids(tokenizer: Tokenizer, own: np.ndarray, *, vocabulary: int = 0) -> SpecialIds:
    """Ids that no text may contain: special tokens, and added tokens that a template itself has, such as "</think>"."""
    special = special_ids(tokenizer, vocabulary=vocabulary)
    added = np.array(list(tokenizer.get_added_tokens_decoder()), np.int32)
    return SpecialIds(np.union1d(special.ids, np.intersect1d(added, own)), special.replacement)
