"""The tags as tokens of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken

from rerank_core.training.losses import PairCrossEncoder


def extend_vocabulary(model: PairCrossEncoder, tags: Sequence[str]) -> int:
    """Make each tag a token of the model with a trainable embedding, and return the number of new tokens.

    A new embedding starts as the mean of its words': "[ROLE:Definition]" as that of "role" and "definition".
    """
    known = model.tokenizer.get_vocab()
    new = [tag for tag in tags if tag not in known]
    pieces = add_tags(model.tokenizer, new)
    rows = max(len(model.tokenizer), model.model.get_input_embeddings().num_embeddings)
    model.model.resize_token_embeddings(rows, mean_resizing=False)
    weights = model.model.get_input_embeddings().weight
    with torch.no_grad():
        for tag, ids in zip(new, pieces, strict=True):
            weights[model.tokenizer.convert_tokens_to_ids(tag)] = weights[ids].mean(0)
    return len(new)


def add_tags(tokenizer: Any, tags: Sequence[str]) -> list[list[int]]:
    """Make each tag one token of a tokenizer; for each, the ids from whose mean embedding it should start."""
    words = [re.sub(r"[\W_]+", " ", tag.replace("-1", " none ")).strip().lower() for tag in tags]
    pieces = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in words]
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    return pieces
