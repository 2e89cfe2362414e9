"""ONNX Runtime: a model on the configured device, its inputs and outputs.

ONNX Runtime runs on the CPU if a GPU's provider cannot be loaded, and only logs a warning. Here that is an error,
unless `allow_fallback`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from rerank_core.errors import MissingEngine, ModelError, OutOfMemory
from rerank_core.inference.onnx_file import INPUTS
from rerank_core.text import shorten

try:
    import onnxruntime
except ImportError as error:
    raise MissingEngine(f"ONNX models need onnxruntime ({error}): pip install 'nightrank[cpu]'") from error

INTEGERS: dict[str, type[np.integer[Any]]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
MAX_TOKENS = {"cpu": 512, "cuda": 65_536, "tensorrt": 65_536}
GPU_STREAMS = 2  # one batch on its way to the device while another is on it
_NO_MEMORY = re.compile(r"failed to allocate|out of memory|bad_alloc|BFCArena", re.IGNORECASE)


class Session:
    """A loaded ONNX model. Safe to share between threads.

    Attributes:
        device: the key of PROVIDERS that it runs on.
        inputs: ONNX Runtime's type of each input, such as "tensor(int64)".
        outputs: names of the outputs.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        first = session.get_providers()[0]
        self.device = next((name for name, provider in PROVIDERS.items() if provider == first), "cpu")
        self.inputs: dict[str, str] = {node.name: node.type for node in session.get_inputs()}
        self.outputs: list[str] = [node.name for node in session.get_outputs()]

    def run(self, output: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """One output of one batch.

        Raises:
            OutOfMemory: the batch does not fit into the device's memory.
        """
        try:
            if self.device == "cpu":
                return np.asarray(self._session.run([output], inputs)[0])
            binding = self._session.io_binding()
            for name, array in inputs.items():
                binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
            binding.bind_output(output, "cpu")
            self._session.run_with_iobinding(binding)
            return np.asarray(binding.copy_outputs_to_cpu()[0])
        except Exception as error:  # onnxruntime's own classes share no base but Exception
            if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
                raise OutOfMemory(shorten(str(error))) from error
            raise


def open_session(path: Path, *, device: str = "cpu", allow_fallback: bool = False) -> Session:
    """The model on the device; on the CPU only if the device is that, or `allow_fallback`.

    Raises:
        ModelError: the file cannot be loaded, or the device is unavailable.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1  # the callers' threads run batches side by side
    options.log_severity_level = 3  # errors come as exceptions; the optimiser's warnings help no user
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
        remedy = (
            "a Git LFS pointer, git lfs pull"
            if pointer
            else "truncated or not a model, copy or export it again"
        )
        raise ModelError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be loaded: {remedy}: {shorten(str(error), limit=400)}"
        ) from error
    if session.get_providers()[0] != wanted[0] and not allow_fallback:
        raise no_device(device, "its provider did not start (a driver, CUDA or cuDNN of another version?)")
    return Session(session)


def token_inputs(session: Session, path: Path, *, export: str) -> dict[str, type[np.integer[Any]]]:
    """NumPy type of each input of a model that reads tokens.

    Raises:
        ModelError: it has other inputs; `export` says what to export instead.
    """
    foreign = [name for name, kind in session.inputs.items() if name not in INPUTS or kind not in INTEGERS]
    if foreign or not set(INPUTS[:2]) <= set(session.inputs):
        listed = ", ".join(f"{name}: {kind}" for name, kind in session.inputs.items())
        raise ModelError(
            f"{path} has the inputs {listed}; needed are input_ids and attention_mask, and perhaps token_type_ids, of "
            f"int64. Export {export}"
        )
    return {name: INTEGERS[kind] for name, kind in session.inputs.items()}


def no_device(device: str, why: str) -> ModelError:
    """The error of a device that is unavailable."""
    return ModelError(
        f"scoring.device is {device!r}, but {why}: pip install 'nightrank[gpu]' in place of 'nightrank[cpu]' (they "
        "cannot be installed together), or set scoring.allow_fallback = true to run on the CPU then"
    )
