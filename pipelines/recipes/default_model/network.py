"""The network in training: a BERT bi-encoder in two parts, whose lower layers are frozen.

A text's states after the frozen layers never change, so they are computed once (`texts.States`), and a step needs the
upper layers alone. The lower layers keep what the base knows of words, and the base ranks text of every kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import BertModel

from rerank_core.scoring.backends.bi_encoder_folder import pool


class Tower(nn.Module):
    """Texts to vectors of length 1.

    Args:
        folder: of a BERT encoder, config.json and model.safetensors.
        pooling: a key of `bi_encoder_folder.POOLINGS`.
        frozen: number of lowest layers that stay as they are, with the embeddings.
        scale: of a cosine, at the start.
    """

    def __init__(self, folder: str | Path, *, pooling: str, frozen: int, scale: float) -> None:
        super().__init__()
        bert = BertModel.from_pretrained(folder, add_pooling_layer=False).float()
        self.embeddings, self.layers = bert.embeddings, bert.encoder.layer
        self.pooling, self.frozen, self.start = pooling, frozen, scale
        self.scale = nn.Parameter(torch.ones(1))  # times `start`
        for part in (self.embeddings, *self.layers[:frozen]):
            part.requires_grad_(False)

    @torch.no_grad()
    def lower(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """States after the frozen layers: float32 [texts, tokens, hidden].

        Args:
            ids: int64 [texts, tokens].
            mask: bool [texts, tokens], False for padding.
        """
        return self._run(self.embeddings(ids), mask, self.layers[: self.frozen])

    def upper(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Vectors float32 [texts, hidden], from the states of `lower`."""
        hidden = self._run(hidden, mask, self.layers[self.frozen :])
        return functional.normalize(pool(hidden.float(), mask.float(), self.pooling), dim=1)

    def logits(self, queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        """Of every query's vector with every passage's: float32 [queries, passages]."""
        return self.start * self.scale * (queries @ passages.T)

    def encoder_state(self) -> dict[str, torch.Tensor]:
        """The weights by their names in BertModel."""
        names = {"embeddings": "embeddings", "layers": "encoder.layer"}
        state = self.state_dict()
        return {
            f"{names[first]}.{rest}": value
            for name, value in state.items()
            for first, _, rest in [name.partition(".")]
            if first in names
        }

    @staticmethod
    def _run(hidden: torch.Tensor, mask: torch.Tensor, layers: Any) -> torch.Tensor:
        bias = None if bool(mask.all()) else mask[:, None, None, :]
        for layer in layers:
            hidden = layer(hidden, attention_mask=bias)
        return hidden
