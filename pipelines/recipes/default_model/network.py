"""The default model: a cross-encoder that starts as the bi-encoder whose weights it takes.

A bi-encoder (all-MiniLM-L6-v2) ranks text of every kind; a cross-encoder fine-tuned from it on a few thousand
questions ranks better in their domain and forgets the others. So this network starts as almost the bi-encoder: query
and passage are encoded side by side, and attention between them passes a gate per layer and head that starts almost
closed. Training opens the gates where that helps. The logit is

    20 (a cos(mean of query, mean of passage) + b late interaction) + small network on both first tokens + c

where a starts at 1, b and the small network at 0; late interaction is the weighted mean, over the query's tokens, of
the best cosine with a token of the passage. The lowest layers stay closed and frozen.

Its interface is that of an ordinary pair classifier: input_ids, attention_mask and token_type_ids of
"[CLS] query [SEP] passage [SEP]" in, one logit per pair out.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import BertModel

CLS = 101  # BERT's uncased vocabulary
MASKED = -1e4  # instead of minus infinity: fits bf16 and quantisation


class ModelSpec(NamedTuple):
    """How the network starts."""

    closed_layers: int = 3  # lowest layers: frozen, without attention between query and passage
    gate: float = -2.0  # initial value added to attention logits between query and passage
    biencoder_start: bool = True  # False: an ordinary BERT classifier, gates open, first-token head only
    cosine_scale: float = 20.0  # that of all-MiniLM-L6-v2's training


class PairModel(nn.Module):
    """(input_ids, attention_mask, token_type_ids), each int64 [pairs, tokens] -> float32 logits [pairs, 1]."""

    def __init__(self, bert: BertModel, spec: ModelSpec) -> None:
        super().__init__()
        config = bert.config
        self.spec, self.heads = spec, config.num_attention_heads
        self.embeddings, self.layers = bert.embeddings, bert.encoder.layer
        hidden = config.hidden_size
        gate = spec.gate if spec.biencoder_start else 0.0
        self.gates = nn.Parameter(torch.full((len(self.layers), self.heads), gate))
        self.scale = nn.Parameter(torch.tensor([1.0 if spec.biencoder_start else 0.0, 0.0]))  # a, b
        self.bias = nn.Parameter(torch.tensor([-0.4 * spec.cosine_scale if spec.biencoder_start else 0.0]))
        self.weigh = nn.Linear(hidden, 1)  # of query tokens in the late interaction
        self.mix = nn.Linear(2 * hidden, hidden)
        self.out = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.out.weight)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        ids, side, position = _two_sides(input_ids, attention_mask, token_type_ids)
        hidden = self._embed(ids, position)
        other = (side[:, :, None] != side[:, None, :])[:, None].to(hidden.dtype)
        padding = (MASKED * (1 - attention_mask))[:, None, None, :].to(hidden.dtype)
        for number, layer in enumerate(self.layers):
            if number < self.spec.closed_layers:
                with torch.no_grad():
                    hidden = self._layer(layer, hidden, padding + MASKED * other)
            else:
                hidden = self._layer(layer, hidden, padding, gate=self.gates[number], other=other)
        return self._logit(hidden.float(), attention_mask, side, position)

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The bi-encoder's unit vectors [texts, hidden] of single texts; for an untrained model only."""
        position = torch.arange(input_ids.shape[1])[None].expand_as(input_ids)
        hidden = self._embed(input_ids, position)
        padding = (MASKED * (1 - attention_mask))[:, None, None, :].to(hidden.dtype)
        for layer in self.layers:
            hidden = self._layer(layer, hidden, padding)
        return _unit(_mean(hidden.float(), attention_mask.float()))

    def _embed(self, ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        e = self.embeddings
        first_type = e.token_type_embeddings.weight[0]  # the only one the bi-encoder was trained with
        return e.LayerNorm(e.word_embeddings(ids) + e.position_embeddings(position) + first_type)

    def _layer(
        self,
        layer: nn.Module,
        x: torch.Tensor,
        bias: torch.Tensor,
        *,
        gate: torch.Tensor | None = None,
        other: torch.Tensor | None = None,
    ) -> torch.Tensor:
        own = layer.attention.self
        pairs, tokens, hidden = x.shape
        q, k, v = (
            part(x).view(pairs, tokens, self.heads, -1).transpose(1, 2)
            for part in (own.query, own.key, own.value)
        )
        bias = bias.to(q.dtype)
        if gate is not None and other is not None:
            bias = bias + gate.view(1, -1, 1, 1).to(q.dtype) * other.to(q.dtype)
        # Written out, and outside autocast, which would compute the softmax in fp32: on a CPU that is faster than
        # the fused kernel when the gate needs a gradient.
        with torch.autocast("cpu", enabled=False):
            weights = (q @ k.transpose(-1, -2) * (hidden // self.heads) ** -0.5 + bias).softmax(-1)
            mixed = (weights @ v).transpose(1, 2).reshape(pairs, tokens, hidden)
        x = layer.attention.output.LayerNorm(x + layer.attention.output.dense(mixed))
        return layer.output.LayerNorm(x + layer.output.dense(nn.functional.gelu(layer.intermediate.dense(x))))

    def _logit(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, side: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        passage = (side * attention_mask).float()
        query = ((1 - side) * attention_mask).float()
        cosine = (_unit(_mean(hidden, query)) * _unit(_mean(hidden, passage))).sum(-1)
        unit = _unit(hidden)
        best = (unit @ unit.transpose(1, 2) + MASKED * (1 - passage[:, None, :])).amax(-1)
        weight = (self.weigh(hidden).squeeze(-1) + MASKED * (1 - query)).softmax(-1)
        late = (weight * best).sum(-1)
        first = _mean(hidden, passage * (position == 0))
        head = self.out(torch.tanh(self.mix(torch.cat([hidden[:, 0], first], -1)))).squeeze(-1)
        similar = self.spec.cosine_scale * (self.scale[0] * cosine + self.scale[1] * late)
        return (similar + head + self.bias).unsqueeze(-1)


def _two_sides(
    ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, side (0 query, 1 passage) and position; the separator becomes the passage's [CLS].

    So each side is as a single text is for the bi-encoder: with its own [CLS] and positions from 0.
    """
    following = torch.cat([types[:, 1:], torch.zeros_like(types[:, :1])], 1)
    opens = following * (1 - types)
    side = types + opens
    length = ((1 - side) * mask).sum(1, keepdim=True)
    count = torch.cumsum(torch.ones_like(ids), 1) - 1
    return ids * (1 - opens) + CLS * opens, side, count - side * length


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def load_model(base: str | Path, *, spec: ModelSpec, new_tokens: list[list[int]]) -> PairModel:
    """The untrained model.

    Args:
        base: folder of a BERT encoder, config.json and model.safetensors.
        spec: see ModelSpec.
        new_tokens: for each token added to the vocabulary, the ids whose mean embedding it starts from.

    Raises:
        OSError: no such folder, or no weights in it.
    """
    bert = BertModel.from_pretrained(base, add_pooling_layer=False)
    old = bert.embeddings.word_embeddings.weight.data
    added = torch.stack([old[pieces].mean(0) for pieces in new_tokens])
    bert.embeddings.word_embeddings = nn.Embedding.from_pretrained(torch.cat([old, added]), freeze=False)
    model = PairModel(bert.float(), spec)
    # The new tokens keep their initial embeddings: no gradient passes the frozen layers.
    for part in (model.embeddings, *model.layers[: spec.closed_layers]):
        part.requires_grad_(False)
    return model
