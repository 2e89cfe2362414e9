"""The check of every model when it is opened: a row alone scores as it does in any batch.

A score must not depend on what else was in its batch: the other rows change from night to night, and a reused score
stands beside computed ones. What breaks this is seldom visible in shapes: a padding id that the model does not take for
padding, positions that count it, a mask that an export lost, scales over the whole batch, a wrong kernel for one width.
So logits are compared by value: a short row alone and beside longer ones, at the widths where kernels change. Widths
follow the sizes of attention heads, since OpenVINO's int8 was once wrong for batches as wide as a head.

A model that fails runs row by row from then on. That is slower and right, and it is said: in a warning, and in the
manifest's `degraded`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from rerank_core.errors import ModelError, OutOfMemory
from rerank_core.inference.encoding import Row
from rerank_core.inference.machine import cores
from rerank_core.scoring.protocol import RunsBatches
from rerank_core.text import shorten

logger = logging.getLogger(__name__)

QUERY, PASSAGE = "who wrote it?", "A novel, by nobody."
FILLER = " It tells of sand, of 7 moons and a desert; nobody in the town had read all of it before, but they knew why."
WIDTHS = (16, 32, 64, 128)
"""Tokens of the batches that are tried, beside the widest one that the scorer makes."""

MOST = 8192
"""Tokens of the widest batch that is tried."""

TOLERANCES = {
    "fp32": (1e-3, 3e-4),
    "tf32": (1e-2, 2e-3),  # products of fp32 on a GPU
    "fp16": (1e-2, 5e-3),
    "bf16": (5e-2, 2e-2),
    "int8": (5e-2, 2e-2),
}
"""By precision, the difference that is rounding: a + b x the size of the logit."""

_warned: set[str] = set()


def check_batches(scorer: object, *, model: str) -> None:
    """Let a scorer run row by row if a row's score depends on its batch, and warn once of each model.

    A scorer that runs no batches, or none of two rows, is not run at all.

    Raises:
        ModelError: the model fails on a short pair.
    """
    if not isinstance(scorer, RunsBatches):
        return
    if why := difference(scorer, model=model):
        scorer.run_row_by_row(why)
        if model not in _warned:
            _warned.add(model)
            logger.warning("%s runs row by row, which is slower: %s", model, why)


def difference(scorer: RunsBatches, *, model: str) -> str:
    """How a row's score depends on its batch; "" if it does not.

    Raises:
        ModelError: the model fails on a short pair.
    """
    check = functools.partial(_difference_beside, scorer, model=model)
    with ThreadPoolExecutor(cores() if scorer.device == "cpu" else 1) as pool:
        return next(filter(None, pool.map(check, _pairs(scorer))), "")


def _difference_beside(scorer: RunsBatches, rows: tuple[Row, Row], *, model: str) -> str:
    """The same of a row beside a longer one."""
    row, longer = rows
    try:
        alone = scorer.run([row])[0]
    except Exception as error:  # whatever the engine raises
        raise ModelError(f"{model} fails on a short pair ({shorten(str(error))}); copy it again") from error
    at = f"beside a row of {len(longer.ids)} tokens"
    try:
        beside = scorer.run([longer, row])[1]
    except OutOfMemory:
        return ""  # such a batch is halved
    except Exception as error:  # a model that takes no batches
        return f"it fails {at} ({shorten(str(error))})"
    apart = float(np.linalg.norm(beside - alone))
    if apart <= _tolerance(scorer, alone) or (np.isnan(alone).any() and np.isnan(beside).any()):
        return ""
    return f"a row of {len(row.ids)} tokens scores otherwise {at} than alone (by {apart:.3g})"


def _pairs(scorer: RunsBatches) -> Iterator[tuple[Row, Row]]:
    """Rows, each with a longer one whose length is the batch's width; the widest batch first, as in a night."""
    most = min(scorer.max_tokens // 2, MOST)
    if not most:
        return
    words = 2 + most // 16  # repetitions that fill the widest batch, as a filler has about 25 tokens
    short, long = scorer.sample([(QUERY, PASSAGE), (QUERY, PASSAGE + FILLER * words)])
    widest = min(most, len(long.ids))
    length = min(len(short.ids), widest * 3 // 4)  # a template may fill the whole row
    if length < 4:
        return
    wide = _of_length(long, widest)
    # Engines, and some architectures, work on 4 tokens at once: a row of 8 tokens has no padding when it runs alone,
    # one of 7 has.
    odd, even = (_of_length(short, n) for n in (length if length % 4 else length - 1, length // 4 * 4))
    yield odd, wide
    yield even, wide
    rows = [even, *(_of_length(long, n) for n in WIDTHS if length < n < widest)]
    yield from pairwise(rows)
    if len(rows) > 1:
        yield rows[-1], wide


def _of_length(row: Row, tokens: int) -> Row:
    """The row without tokens before its last one."""
    return Row(*(np.concatenate([part[: tokens - 1], part[-1:]]) for part in row))


def _tolerance(scorer: RunsBatches, alone: np.ndarray) -> float:
    """The largest difference from this logit, or vector, that is rounding."""
    precision = "tf32" if scorer.precision == "fp32" and scorer.device != "cpu" else scorer.precision
    absolute, relative = TOLERANCES[precision]
    return absolute + relative * float(np.linalg.norm(alone))
