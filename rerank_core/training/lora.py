"""The weights that a stage trains: all of them, or low-rank adapters beside frozen weights, by the library peft.

With adapters, the head, its pooler and the embeddings of the tags are trained in full, and a checkpoint holds only what
is trained. At the end of a stage the adapters are merged into the weights, so that every written model is an ordinary
one; the next stage gets new adapters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from rerank_core.config.training import Lora
from rerank_core.errors import ModelError
from rerank_core.text import shorten
from rerank_core.training.base_model import load_cross_encoder, write_atomically
from rerank_core.training.losses import PairCrossEncoder

FILE = "adapter.safetensors"
_ATTENTION = {"modernbert": ("Wqkv",), "distilbert": ("q_lin", "v_lin")}
"""Attention layers of encoders that peft's table lacks: query and value, or the matrix that contains both."""


class Weights:
    """The weights of a model that a stage trains."""

    def __init__(self, model: PairCrossEncoder, lora: Lora, *, tags: Sequence[str], seed: int) -> None:
        """Freeze the model and add adapters to it, unless `lora.r` is 0.

        Args:
            model: the model to train, changed in place.
            lora: the adapters; r = 0 for none.
            tags: tokens whose embeddings are trained although all others are frozen.
            seed: of the adapters' initial weights.

        Raises:
            ModelError: the model lacks the named layers, or peft does not support it.
        """
        self.model = model
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self._adapters = _attach(model, lora, tags, seed) if lora.r else None
        self.trained = sum(parameter.numel() for parameter in self._trainable().values())

    def save(self, folder: Path) -> None:
        """Write a checkpoint's weights."""
        if self._adapters is None:
            self.model.save_pretrained(str(folder), create_model_card=False)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            trained = {name: p.detach().cpu().contiguous() for name, p in self._trainable().items()}
            save_file(trained, folder / FILE)

    def save_atomically(self, folder: Path) -> None:
        """Write a checkpoint's weights to a folder that appears when it is complete."""
        write_atomically(folder, self.save)

    def restore(self, folder: Path) -> None:
        """Load the weights of a checkpoint."""
        if self._adapters is None:
            saved = load_cross_encoder(folder, max_length=self.model.max_seq_length).state_dict()
            self.model.load_state_dict(saved)
            return
        saved = load_file(folder / FILE)
        trainable = self._trainable()
        assert saved.keys() == trainable.keys()
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.copy_(saved[name])

    def merge(self) -> None:
        """Add the adapters to the weights and remove them; the model cannot be trained further."""
        if self._adapters is not None:
            self._adapters.merge_and_unload(safe_merge=True)
            self._adapters = None

    def _trainable(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def _attach(model: PairCrossEncoder, lora: Lora, tags: Sequence[str], seed: int) -> Any:
    """Add adapters to the model in place, and return peft's model of it."""
    import peft  # here, so that a training without adapters needs no peft

    heads = _heads(model.model)
    outside = rf"(.*\.)?({'|'.join(map(re.escape, heads))})(\..*)?"  # trained in full, without adapters
    transformers.set_seed(seed)
    try:
        return peft.get_peft_model(
            model.model,
            peft.LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=_targets(model.model, lora, outside),
                exclude_modules=outside if heads else None,
                modules_to_save=heads or None,
                trainable_token_indices=_rows(model, tags) or None,
            ),
        )
    except ValueError as error:  # layers that peft does not know or support
        raise ModelError(
            f"cannot add adapters to {model.config.model_type} ({shorten(str(error))}); set lora.target_modules to "
            f"some of its linear layers: {', '.join(_linear(model.model, outside))}"
        ) from error


def _heads(model: Any) -> list[str]:
    """Names of the modules that are trained in full: all beside the encoder, and the encoder's pooler.

    A bi-encoder is an encoder alone; what makes a logit of its cosine is no part of it.
    """
    prefix = model.base_model_prefix
    if not hasattr(model, prefix):
        return []
    named = [
        name
        for name, part in model.named_children()
        if name != prefix and next(part.parameters(), None) is not None
    ]
    pooler = getattr(getattr(model, prefix), "pooler", None)
    return [*named, *([f"{prefix}.pooler"] if pooler is not None else [])]


def _targets(model: Any, lora: Lora, outside: str) -> list[str] | None:
    """Names of the layers that get adapters; None where peft's own table has them."""
    if lora.target_modules == "auto":
        known = _ATTENTION.get(model.config.model_type)
        return list(known) if known else None
    linear = _linear(model, outside)
    missing = [name for name in lora.target_modules if name not in linear]
    if missing:
        raise ModelError(
            f"lora.target_modules: {model.config.model_type} has no linear layers {', '.join(map(repr, missing))}; "
            f"it has {', '.join(linear)}"
        )
    return list(lora.target_modules)


def _linear(model: Any, outside: str) -> list[str]:
    """Last parts of the linear layers' names, each once, without those of the head."""
    names = (
        name.rpartition(".")[2]
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) and not re.fullmatch(outside, name)
    )
    return list(dict.fromkeys(names))


def _rows(model: PairCrossEncoder, tags: Sequence[str]) -> dict[str, list[int]]:
    """The tags' token ids by the name of the module of their embeddings."""
    table = model.model.get_input_embeddings()
    name = next(name for name, part in model.model.named_modules() if part is table)
    return {name: sorted(model.tokenizer.convert_tokens_to_ids(list(tags)))} if tags else {}
