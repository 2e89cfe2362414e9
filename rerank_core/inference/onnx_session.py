"""Sessions of ONNX Runtime on the device that was asked for, or on none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from rerank_core.errors import MissingEngine, ModelError
from rerank_core.text import shorten

try:
    import onnxruntime
except ImportError as error:
    raise MissingEngine(
        f"the onnx backend needs onnxruntime ({error}): pip install 'nightrank[cpu]'"
    ) from error

INTEGERS: dict[str, type[np.integer[Any]]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
MAX_TOKENS = {"cpu": 512, "cuda": 65_536, "tensorrt": 65_536}
GPU_STREAMS = 2  # one batch on its way to the device while another is on it
OUT_OF_MEMORY = re.compile(r"failed to allocate|out of memory|bad_alloc|BFCArena", re.IGNORECASE)


def open_session(
    path: Path, *, device: str = "cpu", allow_fallback: bool = False
) -> onnxruntime.InferenceSession:
    """A session on the device; on another one only if that is allowed.

    Raises:
        ModelError: the file cannot be loaded, or the device cannot be had.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1  # OnnxScorer's own threads run batches side by side
    options.log_severity_level = 3  # errors come as exceptions; the optimiser's warnings help nobody
    wanted = [PROVIDERS[device]] + ([PROVIDERS["cuda"]] if device == "tensorrt" else [])
    missing = [name for name in wanted[:1] if name not in onnxruntime.get_available_providers()]
    if missing and not allow_fallback:
        raise no_device(device, "this onnxruntime was built without it")
    usable = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=usable or [PROVIDERS["cpu"]])
    except Exception as error:  # onnxruntime's own classes share no base but Exception
        with path.open("rb") as file:
            pointer = file.read(20) == b"version https://git-"
        remedy = "a Git LFS pointer, git lfs pull" if pointer else "cut or no model, copy or export it again"
        raise ModelError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be loaded: {remedy}: {shorten(str(error), limit=400)}"
        ) from error
    if session.get_providers()[0] != wanted[0] and not allow_fallback:
        raise no_device(device, "its provider did not start (a driver, CUDA or cuDNN of another version?)")
    return session


def no_device(device: str, why: str) -> ModelError:
    """The error of a night that would run on the CPU without being told to."""
    return ModelError(
        f"scoring.device is {device!r}, but {why}: pip install 'nightrank[gpu]' in place of 'nightrank[cpu]' (they "
        "cannot stand side by side), or set scoring.allow_fallback = true to run on the CPU then"
    )


def device_of(session: onnxruntime.InferenceSession) -> str:
    """The key of PROVIDERS that the session runs on."""
    first = session.get_providers()[0]
    return next((name for name, provider in PROVIDERS.items() if provider == first), "cpu")
