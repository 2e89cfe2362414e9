"""A cross-encoder's rows laid end to end, so that no layer works on padding.

The batch goes through the loaded transformers model as one row of all tokens, [1, tokens, hidden], with each row's own
positions. Only attention needs to know where a row ends, and transformers allows to replace it: with torch's kernel for
rows of different lengths on a GPU (half precision), with SDPA over the rows of each length on a CPU. No code of the
library is copied; an architecture is a line in the table of heads.

Published figures for a GPU: 1.8 to 2.5 times as fast as padding. Batches that are sorted by length have little padding,
so the gain is smaller here. Not for fp32 on a GPU, which that kernel does not support; padding is faster there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from rerank_core.inference.encoding import Row
from rerank_core.inference.torch_device import to_device

NAME = "nightrank_unpadded"
# Architectures whose position ids start after the id of config.json's padding token, and skip that token.
_OFFSET = frozenset({"camembert", "roberta", "xlm-roberta"})


class Layout(NamedTuple):
    """Which tokens belong to which row."""

    lengths: list[int]
    ends: Any  # int32 tensor [rows + 1] on the device: 0, then the end of each row
    kernel: Any = None  # `varlen_kernel`, on a GPU


def _bert_head(model: Any, hidden: Any, layout: Layout) -> Any:
    return model.classifier(model.dropout(model.bert.pooler(_first(hidden, layout))))


def _roberta_head(model: Any, hidden: Any, layout: Layout) -> Any:
    return model.classifier(_first(hidden, layout))


def _modernbert_head(model: Any, hidden: Any, layout: Layout) -> Any:
    if model.config.classifier_pooling == "cls":
        pooled = _first(hidden, layout)[:, 0]
    else:
        lengths = layout.ends.diff().long()
        # Not index_add, which sums in a different order each time on a GPU.
        pooled = torch.segment_reduce(hidden.float(), "mean", lengths=lengths, axis=0).to(hidden.dtype)
    return model.classifier(model.drop(model.head(pooled)))


_HEADS: dict[str, Callable[[Any, Any, Layout], Any]] = {
    "bert": _bert_head,
    "camembert": _roberta_head,
    "electra": _roberta_head,
    "modernbert": _modernbert_head,
    "roberta": _roberta_head,
    "xlm-roberta": _roberta_head,
}


def varlen_kernel() -> Any:
    """torch's attention over rows of different lengths, for half precision on a GPU; None if this torch lacks it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    # The first versions lacked both.
    known = {"scale", "window_size"} <= set(inspect.signature(varlen_attn).parameters)
    return varlen_attn if known else None


def can_unpad(model: Any, *, device: str) -> bool:
    """Whether `Unpadded` supports this model on this device."""
    config = model.config
    if config.model_type not in _HEADS or getattr(config, "is_decoder", False):
        return False
    if device == "cpu":
        return True
    head = config.hidden_size // config.num_attention_heads
    return (
        varlen_kernel() is not None
        and model.dtype in (torch.float16, torch.bfloat16)
        and head % 8 == 0
        and head <= 256
        and torch.cuda.get_device_capability() >= (8, 0)
    )


class Unpadded:
    """Runs a sequence classification model without padding.

    Args:
        model: for which `can_unpad` is true, on its device; its attention is replaced.
        device: "cpu" or "cuda".
        typed: whether the model reads token types.
    """

    def __init__(self, model: Any, *, device: str, typed: bool) -> None:
        self._model, self._device, self._typed = model, device, typed
        AttentionInterface.register(NAME, attend)
        model.set_attn_implementation(NAME)
        self._kernel = varlen_kernel() if device == "cuda" else None
        self._head = _HEADS[model.config.model_type]

    def __call__(self, rows: Sequence[Row]) -> Any:
        """The logits: a tensor [rows, labels] on the device."""
        lengths = [len(row.ids) for row in rows]
        ends = to_device(np.cumsum([0, *lengths], dtype=np.int32), self._device)
        layout = Layout(lengths, ends, self._kernel)
        inputs = {
            "input_ids": np.concatenate([row.ids for row in rows]),
            "position_ids": np.concatenate([self._positions(row.ids) for row in rows]),
        }
        if self._typed:
            inputs["token_type_ids"] = np.concatenate([row.types for row in rows])
        tensors = {k: to_device(v.astype(np.int64)[None], self._device) for k, v in inputs.items()}
        hidden = self._model.base_model(**tensors, layout=layout).last_hidden_state
        return self._head(self._model, hidden[0], layout)

    def _positions(self, ids: np.ndarray) -> np.ndarray:
        if self._model.config.model_type not in _OFFSET:
            return np.arange(len(ids))
        pad_id: int = self._model.base_model.embeddings.padding_idx
        real = ids != pad_id
        return np.where(real, real.cumsum(), 0) + pad_id


def _first(hidden: Any, layout: Layout) -> Any:
    """Each row's first token, [rows, 1, hidden], as heads take it."""
    return hidden[layout.ends[:-1].long()][:, None]


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    scaling: float,
    layout: Layout,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Attention within each row, as transformers calls it.

    Args:
        module: the layer's, unused.
        query, key, value: [1, heads, tokens, size].
        attention_mask: None: a row ends where the layout says.
        scaling: of the scores.
        layout: the rows.
        sliding_window: a token attends to those fewer than this many tokens away; None: to its whole row.

    Returns:
        [1, tokens, heads, size], and no weights.
    """
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))  # [tokens, heads, size]
    if layout.kernel is None:
        return _by_length(query, key, value, layout.lengths, scaling, sliding_window)[None], None
    window = -1 if sliding_window is None else sliding_window - 1  # the kernel's window includes its ends
    ends, longest = (layout.ends, layout.ends), max(layout.lengths)
    parts = [part.contiguous() for part in (query, key, value)]
    output = layout.kernel(*parts, *ends, longest, longest, scale=scaling, window_size=(window, window))
    return output[None], None


def _by_length(
    query: Any, key: Any, value: Any, lengths: list[int], scaling: float, window: int | None
) -> Any:
    """Attention over each run of rows of equal length at once: without padding and, mostly, without a mask."""
    parts, start = [], 0
    for length, run in groupby(lengths):
        end = start + length * sum(1 for _ in run)
        q, k, v = (part[start:end].unflatten(0, (-1, length)).transpose(1, 2) for part in (query, key, value))
        mask = None
        if window is not None and length > window:
            positions = torch.arange(length, device=query.device)
            mask = (positions[:, None] - positions[None]).abs() < window
        seen = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
        parts.append(seen.transpose(1, 2).flatten(0, 1))
        start = end
    return torch.cat(parts)
