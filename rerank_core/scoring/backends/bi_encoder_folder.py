"""The settings of a sentence-transformers folder, and single texts as rows of token ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rerank_core.errors import ModelError
from rerank_core.inference.encoding import Row, few_at_a_time, special_ids
from rerank_core.inference.model_folder import OWN_SETTINGS, read_json, read_modules
from rerank_core.text import shorten

if TYPE_CHECKING:
    from tokenizers import Tokenizer

POOLINGS = ("mean", "cls")
# The flags of folders written before sentence-transformers 6.
_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


class Logit(NamedTuple):
    """How a cosine becomes a logit: `scale` x cosine + `offset`."""

    scale: float
    offset: float


def read_logit(folder: Path) -> Logit | None:
    """The scale and offset in the folder's nightrank.json; None if it has none.

    Raises:
        ModelError: `logit` is something else than two numbers.
    """
    found = read_json(folder / OWN_SETTINGS).get("logit")
    if found is None:
        return None
    try:
        logit = Logit(**{name: float(value) for name, value in found.items()})
    except (AttributeError, TypeError, ValueError):
        logit = Logit(math.nan, math.nan)
    if not (math.isfinite(logit.offset) and 0 < logit.scale < math.inf):
        raise ModelError(
            f"logit in {folder / OWN_SETTINGS} is {shorten(repr(found))}; it needs a positive scale and an offset"
        )
    return logit


class SentenceFolder(NamedTuple):
    """How texts are prepared and embeddings pooled."""

    pooling: str  # one of POOLINGS
    query: str  # put before a query
    passage: str  # put before a passage
    lower: bool  # texts are put in lower case first


def read_sentence_folder(folder: Path, *, pooling: str = "") -> SentenceFolder:
    """The folder's settings; without any, the mean and no prompts, as in sentence-transformers.

    Args:
        folder: of a model.
        pooling: one of POOLINGS, in place of the folder's; "" is the folder's.

    Raises:
        ModelError: an unsupported module or pooling, or prompts that are left out of the pooling.
        ValueError: an unknown `pooling`.
    """
    if pooling and pooling not in POOLINGS:
        raise ValueError(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}")
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    query = prompts.get("query") or ""
    passage = next((prompts[k] for k in ("document", "passage", "corpus") if prompts.get(k)), "")
    module = _pooling_module(folder)
    config = read_json(folder / module / "config.json") if module else {}
    if config.get("include_prompt") is False and (query or passage):
        raise ModelError(
            f"{folder / module} leaves prompts out of the pooling, which is not supported; use another model"
        )
    transformer = read_json(folder / "sentence_bert_config.json")
    lower = transformer.get("do_lower_case") is True
    if "message" in (transformer.get("modality_config") or {}):
        raise ModelError(
            f"modality_config in {folder / 'sentence_bert_config.json'} has messages of a chat template, which a "
            "bi-encoder is not given here; use another model"
        )
    return SentenceFolder(pooling or _pooling(config, folder / module), query, passage, lower)


def _pooling_module(folder: Path) -> str:
    """The pooling module's path inside the folder; "" if there is none."""
    pooling = ""
    for module in read_modules(folder):
        kind, path = str(module.get("type")).rpartition(".")[2], str(module.get("path", ""))
        if kind == "Pooling":
            pooling = path
        elif kind not in ("Transformer", "Normalize") or (kind == "Transformer" and path):
            raise ModelError(
                f"{folder / 'modules.json'} has a {kind} in {path or 'the folder itself'}, which is not "
                "supported; use a model of a Transformer in the folder itself, a Pooling and perhaps a Normalize"
            )
    return pooling


def _pooling(config: dict[str, Any], module: Path) -> str:
    mode = config.get("pooling_mode")
    if mode is None:
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        mode = [_FLAGS.get(key, key) for key in on]
    modes = [mode] if isinstance(mode, str) else list(mode)
    if not modes:
        return "mean"
    if len(modes) > 1 or modes[0] not in POOLINGS:
        raise ModelError(
            f"{module} pools by {', '.join(map(str, modes))}; supported: {', '.join(POOLINGS)}. Use another model"
        )
    return str(modes[0])


class SingleEncoder:
    """Turns texts into rows. Safe to share between threads.

    Args:
        tokenizer: without truncation and padding.
        max_length: longest row in tokens, special tokens included; the text's end is cut off.
        lower: put texts in lower case first.
        side: where a text that is too long is cut, "right" or "left".
        vocabulary: number of ids that the model has; an added token beyond becomes one without meaning.

    Raises:
        ValueError: a max_length that leaves no room for a text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        vocabulary: int,
        lower: bool = False,
        side: str = "right",
    ) -> None:
        self._tokenizer, self._max_length, self._lower = tokenizer, max_length, lower
        self._vocabulary, self._unknown = vocabulary, special_ids(tokenizer).replacement
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        if max_length < special + 1:
            raise ValueError(f"max_length is {max_length}; a text and {special} special tokens need more")
        mask = tokenizer.encode("a").special_tokens_mask
        # Special tokens around the text stay there when the text is cut.
        self._before = next((n for n, own in enumerate(mask) if not own), 0) if side == "left" else None
        self._after = next((n for n, own in enumerate(reversed(mask)) if not own), 0)

    def encode(self, texts: Sequence[str]) -> list[tuple[Row, int]]:
        """For each text its row, and the number of its tokens beyond max_length."""
        given = [text.lower() for text in texts] if self._lower else list(texts)
        rows = []
        for encoding in few_at_a_time(self._tokenizer.encode_batch_fast, given):
            ids = np.array(encoding.ids, np.int32)
            ids[ids >= self._vocabulary] = self._unknown
            overflow = max(0, len(ids) - self._max_length)
            if overflow:
                start = len(ids) - self._after - overflow if self._before is None else self._before
                ids = np.delete(ids, slice(start, start + overflow))
            rows.append((Row(ids, np.zeros(len(ids), np.int8)), overflow))
        return rows


def pool(hidden: Any, mask: Any, pooling: str) -> Any:
    """One vector per row, [rows, size], of hidden states [rows, tokens, size]: of NumPy or of torch.

    Args:
        hidden: float32.
        mask: float32 [rows, tokens], 1 for a token and 0 for padding.
        pooling: one of POOLINGS.
    """
    if pooling == "cls":
        return hidden[:, 0]
    return (hidden * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
