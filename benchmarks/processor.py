"""The peak rate of a processor, and the operations (multiplications and additions) of a cross-encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rerank_core.inference.machine import cores

GEMM = 2048


def best_rate(product: Callable[[], object], *, seconds: float) -> float:
    """Operations per second of the fastest of many products of two GEMM x GEMM matrices."""
    product()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return 2 * GEMM**3 / best


def gemm_peak(precision: str, *, seconds: float) -> float:
    """Operations per second of torch's matrix product (oneDNN, MKL) on all cores."""
    import torch

    torch.set_num_threads(cores())
    if precision == "int8":
        a = torch.randint(-127, 127, (GEMM, GEMM), dtype=torch.int8)
        return best_rate(lambda: torch._int_mm(a, a), seconds=seconds)
    b = torch.randn(GEMM, GEMM, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return best_rate(lambda: b @ b, seconds=seconds)


def operations(lengths: Sequence[int], config: dict[str, Any], *, spared: bool) -> float:
    """Operations for rows of these lengths; `spared`: the last layer is computed for the first token only."""
    h, f, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    n = np.array(lengths, np.float64)
    whole = 2 * (4 * h * h + 2 * h * f) * n + 4 * h * n * n
    last = 2 * (2 * h * h) * n + 2 * (2 * h * h + 2 * h * f) + 4 * h * n
    return float((whole * (layers - spared) + (last if spared else 0)).sum())
