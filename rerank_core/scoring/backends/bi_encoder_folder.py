"""What a sentence-transformers folder says of its embeddings, and single texts as rows of token ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rerank_core.errors import ModelError
from rerank_core.inference.encoding import Row
from rerank_core.inference.model_folder import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

POOLINGS = ("mean", "cls")
# The flags of folders written before sentence-transformers 6.
_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


class SentenceFolder(NamedTuple):
    """How a folder's model is to be used."""

    pooling: str  # one of POOLINGS
    query: str  # put before a query
    passage: str  # put before a passage
    lower: bool  # texts are put in lower case first


def read_sentence_folder(folder: Path, *, pooling: str = "") -> SentenceFolder:
    """What the folder says; the mean and no prompts where it says nothing, as sentence-transformers takes it.

    Args:
        folder: of a model.
        pooling: one of POOLINGS in place of what the folder says; "" believes the folder.

    Raises:
        ModelError: a module or a pooling that is not known here, or a prompt that pooling leaves out.
        ValueError: an unknown `pooling`.
    """
    if pooling and pooling not in POOLINGS:
        raise ValueError(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}")
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    query = prompts.get("query") or ""
    passage = next((prompts[k] for k in ("document", "passage", "corpus") if prompts.get(k)), "")
    place = _pooling_place(folder)
    config = read_json(folder / place / "config.json") if place else {}
    if config.get("include_prompt") is False and (query or passage):
        raise ModelError(
            f"{folder / place} leaves prompts out of the pooling, which is not followed here; take another model"
        )
    lower = read_json(folder / "sentence_bert_config.json").get("do_lower_case") is True
    return SentenceFolder(pooling or _pooling(config, folder / place), query, passage, lower)


def _pooling_place(folder: Path) -> str:
    """The pooling module's path inside the folder; "" if there is none."""
    place = ""
    for module in _modules(folder / "modules.json"):
        kind, path = str(module.get("type")).rpartition(".")[2], str(module.get("path", ""))
        if kind == "Pooling":
            place = path
        elif kind not in ("Transformer", "Normalize") or (kind == "Transformer" and path):
            raise ModelError(
                f"{folder / 'modules.json'} has a {kind} in {path or 'the folder itself'}, which is not followed here; "
                "take a model of a Transformer in the folder itself, a Pooling and perhaps a Normalize"
            )
    return place


def _modules(path: Path) -> list[dict[str, Any]]:
    """The modules that a folder lists; none where there is no list."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not readable JSON ({error}); copy the folder again") from None
    if not isinstance(held, list) or not all(isinstance(module, dict) for module in held):
        raise ModelError(f"{path} is no list of modules; copy the folder again")
    return held


def _pooling(config: dict[str, Any], place: Path) -> str:
    mode = config.get("pooling_mode")
    if mode is None:
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        mode = [_FLAGS.get(key, key) for key in on]
    found = [mode] if isinstance(mode, str) else list(mode)
    if not found:
        return "mean"
    if len(found) > 1 or found[0] not in POOLINGS:
        raise ModelError(
            f"{place} pools by {', '.join(map(str, found))}; known here: {', '.join(POOLINGS)}. Take another model"
        )
    return str(found[0])


class SingleEncoder:
    """Turns texts into rows. Safe to share between threads.

    Args:
        tokenizer: without truncation and padding.
        max_length: longest row in tokens, special tokens included; the text's end is cut off.
        lower: put texts in lower case first.

    Raises:
        ValueError: a max_length that leaves no room for a text.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_length: int, lower: bool = False) -> None:
        self._tokenizer, self._max_length, self._lower = tokenizer, max_length, lower
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        if max_length < special + 1:
            raise ValueError(f"max_length is {max_length}; a text and {special} special tokens need more")
        mask = tokenizer.encode("a").special_tokens_mask
        # What stands behind a text stays there when the text is cut.
        self._behind = next((n for n, own in enumerate(reversed(mask)) if not own), 0)

    def encode(self, texts: Sequence[str]) -> list[tuple[Row, int]]:
        """For each text its row, and how many of its tokens the row leaves out."""
        given = [text.lower() for text in texts] if self._lower else list(texts)
        rows = []
        for encoding in self._tokenizer.encode_batch_fast(given):
            ids = np.array(encoding.ids, np.int32)
            beyond = max(0, len(ids) - self._max_length)
            if beyond:
                ids = np.delete(ids, slice(len(ids) - self._behind - beyond, len(ids) - self._behind))
            rows.append((Row(ids, np.zeros(len(ids), np.int8)), beyond))
        return rows


def pool(hidden: Any, mask: Any, pooling: str) -> Any:
    """One vector a row, [rows, size], of hidden states [rows, tokens, size]: of NumPy or of torch.

    Args:
        hidden: float32.
        mask: float32 [rows, tokens], 1 for a token and 0 for padding.
        pooling: one of POOLINGS.
    """
    if pooling == "cls":
        return hidden[:, 0]
    return (hidden * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
