"""Cross-encoders on ONNX Runtime: on the CPU, on CUDA, or by TensorRT.

Takes any Hugging Face or sentence-transformers cross-encoder folder that holds `tokenizer.json` and an ONNX
file: `onnx/model.onnx`, else `model.onnx`, else the only *.onnx file there. Needs neither torch nor
transformers. The precision is the file's own.

On a CPU threads share out the batches, each batch on one thread, and batches are small: on passages of about 140
tokens (MiniLM-L6, 2 cores) that was 1.5 times as fast as batches of 4,096 tokens with the threads inside,
which pad and leave the processor's cache. A dynamically quantised model gets each row alone: it takes its
activations' scale from the whole batch, so that a row's company and padding would change its logit (by up to
half of the logits' own deviation, as measured), and a score kept from last night would not be tonight's.

ONNX Runtime runs on the CPU when a GPU's provider cannot be loaded, and says so in a warning only. Here that is an
error, unless `allow_fallback`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerank_core.errors import MissingEngine, ModelError, OutOfMemory
from rerank_core.inference.batching import padded
from rerank_core.inference.encoding import PairEncoder, Row, read_folder
from rerank_core.inference.machine import cores
from rerank_core.inference.model_folder import file_digest, find_onnx, local_folder
from rerank_core.inference.onnx_file import DYNAMIC_QUANTISATION, INPUTS, external_files, model_holds
from rerank_core.inference.onnx_session import (
    GPU_STREAMS,
    INTEGERS,
    MAX_TOKENS,
    OUT_OF_MEMORY,
    device_of,
    open_session,
)
from rerank_core.scoring.batched import BatchedScorer, one_logit
from rerank_core.text import fingerprint, shorten

try:
    import onnxruntime
except ImportError as error:
    raise MissingEngine(
        f"the onnx backend needs onnxruntime ({error}): pip install 'nightrank[cpu]'"
    ) from error
GPU_CHUNK = 16_384


class OnnxScorer(BatchedScorer):
    """A cross-encoder in ONNX Runtime. Safe to share between threads.

    Args:
        folder: the model's folder, or its name on the Hugging Face Hub.
        onnx_file: ONNX file inside it; "" finds it.
        max_length: longest input in tokens, special tokens included.
        max_tokens: most tokens of one batch, padding counted; 0 is MAX_TOKENS. Not for a dynamically quantised model.
        threads: batches that run at once; 0 is one a core, on a GPU GPU_STREAMS.
        device: a key of PROVIDERS.
        allow_fallback: take the CPU where the device cannot be had.

    Raises:
        ModelError: the folder cannot be used, or its model is no cross-encoder, or the device cannot be had.
        ValueError: a max_length, max_tokens or threads that makes no sense.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        onnx_file: str = "",
        max_length: int = 256,
        max_tokens: int = 0,
        threads: int = 0,
        device: str = "cpu",
        allow_fallback: bool = False,
    ) -> None:
        if max_tokens < 0 or threads < 0:
            raise ValueError(f"max_tokens is {max_tokens}, threads {threads}; at least 0 is needed")
        folder = local_folder(folder)
        path = find_onnx(folder, onnx_file)
        read = read_folder(folder, max_length=max_length)
        self._pad_id = read.pad_id
        self._session = open_session(path, device=device, allow_fallback=allow_fallback)
        self.device = device_of(self._session)
        self._types = _input_types(self._session, path)
        outputs = [output.name for output in self._session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]
        files = [path, *external_files(path), folder / "tokenizer.json"]
        # The same graph gives other digits on another device, so a kept score is not carried from one to another.
        engine = ("onnxruntime",) if self.device == "cpu" else ("onnxruntime", self.device)
        settings = (str(max_length), str(self._pad_id))
        super().__init__(
            read.encoder,
            fingerprint=fingerprint(*engine, *settings, *map(file_digest, files))[:32],
            max_tokens=1
            if model_holds(path, DYNAMIC_QUANTISATION)
            else max_tokens or MAX_TOKENS[self.device],
            streams=threads or (cores() if self.device == "cpu" else GPU_STREAMS),
            reads_tags=read.reads_tags,
            chunk=512 if self.device == "cpu" else GPU_CHUNK,
        )
        self._probe(path, read.encoder, last=read.last_id)

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        return one_logit(self._call(padded(rows, pad_id=self._pad_id, dtypes=self._types)))

    def _call(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        try:
            if self.device == "cpu":
                return np.asarray(self._session.run([self._output], inputs)[0])
            binding = self._session.io_binding()
            for name, array in inputs.items():
                binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
            binding.bind_output(self._output, "cpu")
            self._session.run_with_iobinding(binding)
            return np.asarray(binding.copy_outputs_to_cpu()[0])
        except Exception as error:  # onnxruntime's own classes share no base but Exception
            if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
                raise OutOfMemory(shorten(str(error))) from error
            raise

    def _probe(self, path: Path, encoder: PairEncoder, *, last: int) -> None:
        """Run two inputs of unlike length, then the vocabulary's last id, and look at the answer's shape."""
        try:
            first = self.run(encoder.encode([("a", "b"), ("a", "b c d")]))
            values = {"input_ids": last, "attention_mask": 1, "token_type_ids": 0}
            self._call({name: np.full((1, 1), values[name], dtype) for name, dtype in self._types.items()})
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
        except Exception as error:
            raise ModelError(
                f"{path} fails on two short inputs ({shorten(str(error))}); export it with dynamic batch and "
                f"sequence axes, from the model whose tokenizer.json this is (its ids go up to {last})"
            ) from error
        if first.shape != (2,):
            raise ModelError(f"{path} answers 2 inputs with {first.size} logits; export it with a batch axis")


def _input_types(session: onnxruntime.InferenceSession, path: Path) -> dict[str, type[np.integer[Any]]]:
    """NumPy type of each of the model's inputs."""
    held = {node.name: node.type for node in session.get_inputs()}
    missing = set(INPUTS[:2]) - set(held)
    foreign = [name for name, kind in held.items() if name not in INPUTS or kind not in INTEGERS]
    if missing or foreign:
        listed = ", ".join(f"{name}: {kind}" for name, kind in held.items())
        raise ModelError(
            f"{path} is no text cross-encoder: its inputs are {listed}; needed are input_ids and "
            "attention_mask, and perhaps token_type_ids, of int64. Export a sequence classification model"
        )
    return {name: INTEGERS[kind] for name, kind in held.items()}
