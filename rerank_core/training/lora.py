"""What of a model a stage trains: all its weights, or low-rank adapters beside its frozen ones, by the library peft.

The head, and the pooler that feeds it, train whole, and so do the embeddings of the tags; other tokens' stay. A
checkpoint then holds what was trained alone. At the end of a stage the adapters are merged into the weights, so that
every model that is written is an ordinary one; the next stage has adapters of its own.
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
from rerank_core.training.base_model import load_cross_encoder, write_complete
from rerank_core.training.losses import PairCrossEncoder

FILE = "adapter.safetensors"
_ATTENTION = {"modernbert": ("Wqkv",), "distilbert": ("q_lin", "v_lin")}
"""Attention of encoders that peft's own table lacks; query and value, as there, or the one matrix that holds them."""


class Weights:
    """The part of a model that a stage trains."""

    def __init__(self, model: PairCrossEncoder, lora: Lora, *, tags: Sequence[str], seed: int) -> None:
        """Freeze the model and put adapters into it, if `lora` asks for them.

        Args:
            model: what to train; the adapters live within it.
            lora: the adapters; r = 0 for none.
            tags: tokens whose embeddings learn although all others are frozen.
            seed: of the adapters' first weights.

        Raises:
            ModelError: the model has no such layers.
        """
        self.model = model
        self.parameters = sum(one.numel() for one in model.parameters())
        self._adapters = _attach(model, lora, tags, seed) if lora.r else None
        self.trained = sum(one.numel() for one in self._learning().values())

    def save(self, place: Path) -> None:
        """Write a checkpoint's weights."""
        if self._adapters is None:
            self.model.save_pretrained(str(place), create_model_card=False)
        else:
            place.mkdir(parents=True, exist_ok=True)
            held = {name: one.detach().cpu().contiguous() for name, one in self._learning().items()}
            save_file(held, place / FILE)

    def save_complete(self, place: Path) -> None:
        """The same, in a folder that appears once it is whole."""
        write_complete(place, self.save)

    def restore(self, place: Path) -> None:
        """Take the weights of a checkpoint."""
        if self._adapters is None:
            held = load_cross_encoder(place, max_length=self.model.max_seq_length).state_dict()
            self.model.load_state_dict(held)
            return
        held = load_file(place / FILE)
        learning = self._learning()
        assert held.keys() == learning.keys()
        with torch.no_grad():
            for name, one in learning.items():
                one.copy_(held[name])

    def merge(self) -> None:
        """Add the adapters to the weights, and take them out of the model, which can be trained no more."""
        if self._adapters is not None:
            self._adapters.merge_and_unload(safe_merge=True)
            self._adapters = None

    def _learning(self) -> dict[str, torch.nn.Parameter]:
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}


def _attach(model: PairCrossEncoder, lora: Lora, tags: Sequence[str], seed: int) -> Any:
    """Put adapters into the model in place, and give peft's handle of them."""
    import peft  # here, so that a training without adapters needs no peft

    heads = _heads(model.model)
    outside = rf"(.*\.)?({'|'.join(map(re.escape, heads))})(\..*)?"  # it trains whole, and needs no adapters
    transformers.set_seed(seed)
    try:
        return peft.get_peft_model(
            model.model,
            peft.LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=_targets(model.model, lora, outside),
                exclude_modules=outside,
                modules_to_save=heads,
                trainable_token_indices=_rows(model, tags) or None,
            ),
        )
    except ValueError as error:  # what peft cannot put an adapter on
        raise ModelError(
            f"no adapters for {model.config.model_type} ({shorten(str(error))}); set lora.target_modules to names of "
            f"its linear layers: {', '.join(_linear(model.model, outside))}"
        ) from error


def _heads(model: Any) -> list[str]:
    """Paths of what is trained whole: all that stands beside the encoder, and the encoder's pooler."""
    prefix = model.base_model_prefix
    named = [
        name
        for name, part in model.named_children()
        if name != prefix and next(part.parameters(), None) is not None
    ]
    pooler = getattr(getattr(model, prefix), "pooler", None)
    return [*named, *([f"{prefix}.pooler"] if pooler is not None else [])]


def _targets(model: Any, lora: Lora, outside: str) -> list[str] | None:
    """Names of the layers that get adapters; None where peft knows them."""
    if lora.target_modules == "auto":
        known = _ATTENTION.get(model.config.model_type)
        return list(known) if known else None
    there = _linear(model, outside)
    missing = [name for name in lora.target_modules if name not in there]
    if missing:
        raise ModelError(
            f"lora.target_modules names {', '.join(map(repr, missing))}, of which {model.config.model_type} has no "
            f"linear layer; it has {', '.join(there)}"
        )
    return list(lora.target_modules)


def _linear(model: Any, outside: str) -> list[str]:
    """Last names of the linear layers, each once; those of the head are no choice."""
    found = {
        name.rpartition(".")[2]: None
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) and not re.fullmatch(outside, name)
    }
    return list(found)


def _rows(model: PairCrossEncoder, tags: Sequence[str]) -> dict[str, list[int]]:
    """The tags' rows by the name of the embeddings that they are in."""
    table = model.model.get_input_embeddings()
    name = next(name for name, part in model.model.named_modules() if part is table)
    return {name: sorted(model.tokenizer.convert_tokens_to_ids(list(tags)))} if tags else {}
