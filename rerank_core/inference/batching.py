"""Batches budgeted in tokens, padding included.

The cost of a batch is its number of rows x its longest row, so rows of similar length go together, and a batch is full
when one more row would exceed the budget (as in text-embeddings-inference).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np


def plan_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Pack rows into batches of at most `max_tokens` tokens each, padding included.

    Args:
        lengths: true length of each row, in tokens.
        max_tokens: most tokens of a batch: its rows x its longest row.

    Returns:
        Indices into `lengths`, each exactly once: the longest rows first (so that a batch that does not fit into memory
        fails at once, not after an hour), equal lengths in the given order. No batch is empty. A row longer than
        `max_tokens` is a batch of its own.

    Raises:
        ValueError: `max_tokens` below 1, or a negative length.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; a batch needs room for at least 1 token")
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if order and lengths[order[-1]] < 0:
        raise ValueError(f"row {order[-1]} has length {lengths[order[-1]]}; a count of tokens is 0 or more")
    batches: list[list[int]] = []
    for i in order:
        # Longest first: the batch's first row is its longest, so it alone sets the padded width.
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


class Tokens(Protocol):
    """A model's input, such as `rerank_core.inference.encoding.Row`."""

    @property
    def ids(self) -> Sequence[int] | np.ndarray: ...

    @property
    def types(self) -> Sequence[int] | np.ndarray: ...


def padded(
    rows: Sequence[Tokens], *, pad_id: int, dtypes: Mapping[str, type], width: int = 0, typed: bool = True
) -> dict[str, np.ndarray]:
    """The rows as arrays [rows, longest row]: those of input_ids, attention_mask, token_type_ids that `dtypes` names.

    Args:
        rows: at least one.
        pad_id: fills input_ids after each row.
        dtypes: NumPy type of each array.
        width: least width.
        typed: whether token_type_ids are the rows'; else they are 0.
    """
    shape = (len(rows), max(width, *(len(row.ids) for row in rows)))
    arrays: dict[str, np.ndarray] = {name: np.zeros(shape, dtype) for name, dtype in dtypes.items()}
    arrays["input_ids"][:] = pad_id
    for i, row in enumerate(rows):
        n = len(row.ids)
        arrays["input_ids"][i, :n] = row.ids
        arrays["attention_mask"][i, :n] = 1
        if typed and "token_type_ids" in arrays:
            arrays["token_type_ids"][i, :n] = row.types
    return arrays


Pair = tuple[str, str]
