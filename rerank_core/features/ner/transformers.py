"""Token-classification models on PyTorch, by transformers: a local folder or a name on the Hugging Face Hub.

The weights are safetensors and the code is transformers' own: no pickle is opened, and no model brings code along.
A name is downloaded when the recogniser is made, and every process that it is pickled to uses that commit.

The text goes through the model's fast tokenizer, exactly as in `onnx`, so that both find the same mentions.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rerank_core.errors import MissingEngine, ModelError
from rerank_core.features.ner.tokens import TOKENS_VERSION, Tag, read_tags
from rerank_core.features.ner.windows import Reader, TokenRecogniser, WindowRow, longest_input
from rerank_core.inference.model_folder import TORCH_FILES, WEIGHTS, file_digests, local_folder, read_json
from rerank_core.text import fingerprint, shorten

try:
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForTokenClassification, AutoTokenizer
except ImportError as error:
    raise MissingEngine(
        f"the transformers recogniser needs torch and transformers ({error}): pip install 'nightrank[train]'"
    ) from error

_DEVICES = ("cpu", "auto")


class _Settings(NamedTuple):
    """A recogniser's arguments: all that is pickled of it."""

    name: str
    revision: str  # a commit; "" for a local folder
    device: str
    max_length: int
    max_tokens: int


class TransformersRecogniser(TokenRecogniser):
    """A token-classification model in PyTorch. Safe to share between threads.

    Its fingerprint: 32 hex digits over the weights, config.json, the tokenizer's files and max_length.

    Args:
        name_or_folder: a local folder, or a name on the Hugging Face Hub.
        device: "cpu", or "auto": the GPU if there is one.
        max_length: longest input in tokens, special tokens included; lowered to what the model takes. Longer
            texts are read in windows.
        max_tokens: most tokens of one batch, padding counted; a GPU wants many more.

    Raises:
        ModelError: the model cannot be used; the message names the file and the remedy.
        ValueError: an unknown device, or a max_length or max_tokens that makes no sense.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        *,
        device: str = "cpu",
        max_length: int = 512,
        max_tokens: int = 2048,
    ) -> None:
        if max_length < 1 or max_tokens < 1:
            raise ValueError(f"max_length is {max_length}, max_tokens {max_tokens}; at least 1 is needed")
        if device not in _DEVICES:
            raise ValueError(f"unknown device {device!r}; known: {', '.join(_DEVICES)}")
        name, revision = str(name_or_folder), ""
        if not Path(name).is_dir():
            # The last part of a snapshot's path is its commit.
            revision = local_folder(name, TORCH_FILES).name
        self._settings = _Settings(name, revision, device, max_length, max_tokens)
        self._fingerprint = _identity(local_folder(name, TORCH_FILES, revision=revision), max_length)

    def _open(self) -> Reader:
        return _load(self._settings, self._fingerprint)


class _Engine:
    """A model on its device."""

    def __init__(self, model: Any, *, pad_id: int, device: str) -> None:
        has_gpu = device == "auto" and torch.cuda.is_available()
        self._device = torch.device("cuda" if has_gpu else "cpu")
        self._model = model.to(self._device).eval()
        self._pad_id = pad_id
        self._typed = "token_type_ids" in inspect.signature(model.forward).parameters

    def classify(self, batches: Sequence[list[WindowRow]]) -> Iterable[list[np.ndarray]]:
        """Logits of each row of each batch, in the batches' order."""
        return map(self._run, batches)

    def _run(self, rows: Sequence[WindowRow]) -> list[np.ndarray]:
        """Logits of one batch, padded to its longest row."""
        width = max(len(row.ids) for row in rows)
        inputs = {
            "input_ids": [row.ids + [self._pad_id] * (width - len(row.ids)) for row in rows],
            "attention_mask": [[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows],
        }
        if self._typed:
            inputs["token_type_ids"] = [row.types + [0] * (width - len(row.types)) for row in rows]
        with torch.inference_mode():
            tensors = {name: torch.tensor(value, device=self._device) for name, value in inputs.items()}
            logits = self._model(**tensors).logits.float().cpu().numpy()
        return [logits[i, : len(row.ids)] for i, row in enumerate(rows)]


@lru_cache(maxsize=4)
def _load(settings: _Settings, expected: str) -> Reader:
    folder = local_folder(settings.name, TORCH_FILES, revision=settings.revision)
    if _identity(folder, settings.max_length) != expected:
        raise ModelError(
            f"the files of the model {settings.name} differ from those that this recogniser was made with; give every "
            "machine the same files, and do not change them while a night runs"
        )
    config = read_json(folder / "config.json")
    tokenizer, pad_id = _load_tokenizer(folder, config)
    engine = _Engine(_load_model(folder), pad_id=pad_id, device=settings.device)
    return Reader(
        tokenizer,
        _tags(folder),
        classify=engine.classify,
        max_length=longest_input(config, pad_id=pad_id, wanted=settings.max_length),
        max_tokens=settings.max_tokens,
    )


def _identity(folder: Path, max_length: int) -> str:
    """Fingerprint of the files of a model's folder that matter.

    Raises:
        ModelError: no safetensors, or no usable labels.
    """
    if not any(folder.glob(WEIGHTS)):
        raise ModelError(
            f"no {WEIGHTS} in {folder}; weights in other formats are never opened. Save the model as safetensors with "
            "transformers: model.save_pretrained(folder)"
        )
    tags: tuple[Tag, ...] = _tags(folder)
    digests = file_digests(folder, TORCH_FILES)
    return fingerprint("transformers", TOKENS_VERSION, repr(tags), str(max_length), *digests)[:32]


def _tags(folder: Path) -> tuple[Tag, ...]:
    return read_tags(read_json(folder / "config.json").get("id2label"), source=str(folder))


def _load_tokenizer(folder: Path, config: dict[str, Any]) -> tuple[Tokenizer, int]:
    """The fast tokenizer inside transformers' own, and the padding token's id."""
    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, ImportError and others
        raise ModelError(f"the tokenizer in {folder} cannot be loaded: {shorten(str(error))}") from error
    if not loaded.is_fast:
        raise ModelError(
            f"the tokenizer in {folder} is a slow one, which gives no offsets; a tokenizer.json is needed: take a "
            "model that has one, or convert it with transformers.convert_slow_tokenizer"
        )
    pad_id = loaded.pad_token_id if loaded.pad_token_id is not None else config.get("pad_token_id")
    if not isinstance(pad_id, int):
        raise ModelError(f"the model in {folder} has no padding token; add pad_token_id to its config.json")
    # A copy: padding and truncation are state of a tokenizer, and windows need neither.
    tokenizer = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, pad_id


def _load_model(folder: Path) -> Any:
    try:
        model, info = AutoModelForTokenClassification.from_pretrained(
            str(folder),
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,  # as checked by the reader's tolerance, and equal on every machine
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelError(
            f"the model in {folder} cannot be loaded: {shorten(str(error), limit=400)}; copy the folder again, or "
            "take a token-classification model whose architecture is part of transformers"
        ) from error
    missing = ", ".join(sorted(info["missing_keys"]))
    if missing:  # transformers would fill them with random numbers
        raise ModelError(
            f"the weights in {folder} lack {shorten(missing)}: it is no token-classification model; take a "
            "named-entity model"
        )
    return model
