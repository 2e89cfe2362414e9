"""Cross-encoders on OpenVINO, on the CPU: from the same ONNX file as ONNX Runtime, or from a quantised copy of it.

- fp32, bf16: the ONNX file in full precision (a dynamically quantised one runs, but slower than fp32). bf16
  needs a processor that has it.
- int8: `openvino/openvino_model_qint8_quantized.xml` in the model's folder, where sentence-transformers looks for it
  too; `nightrank autotune` or openvino_int8.py writes it. Its scales are fixed by calibration, so the other rows of a
  batch do not change a logit, as they would with dynamic quantisation.

Batches are small and each runs on one thread, as in onnx.py. OpenVINO compiles its kernels anew for every shape that it
has not seen, so widths are rounded up to the next multiple of 4.

One width is avoided in int8. On processors with AMX, OpenVINO 2026.4 multiplies queries and keys wrongly where a batch
is exactly as wide as an attention head (32 tokens for most small models): the last tokens of its rows get wrong
attention, and logits are off by whole units. Such a batch is padded to the next width.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerank_core.errors import ModelError, OutOfMemory
from rerank_core.inference.batching import padded
from rerank_core.inference.cross_encoder_folder import read_folder
from rerank_core.inference.encoding import Row
from rerank_core.inference.machine import cores
from rerank_core.inference.model_folder import OPENVINO_INT8, file_digest, find_onnx, local_folder
from rerank_core.inference.onnx_file import (
    INPUTS,
    LOGITS,
    choose_output,
    external_files,
    precision_of,
)
from rerank_core.scoring.batched import BatchedScorer, Encoder, one_logit
from rerank_core.text import fingerprint, shorten

# OpenVINO and NNCF report their use over the network, from a process that they fork, unless this package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

from rerank_core.scoring.backends.openvino_cls import keep_first_token  # noqa: E402

PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": ""}
MAX_TOKENS = 1024
ROUND = 4  # tokens


class OpenVinoScorer(BatchedScorer):
    """A cross-encoder on OpenVINO. Safe to share between threads.

    Args:
        folder: the model's folder, or its name on the Hugging Face Hub.
        precision: a key of PRECISIONS.
        onnx_file: ONNX file inside the folder, for fp32 and bf16; "" finds it.
        max_length: longest input in tokens, special tokens included.
        max_tokens: most tokens of a batch, padding included; 0 is MAX_TOKENS.
        threads: batches that run at once; 0 is one per core.

    Raises:
        ModelError: the folder cannot be used, or its model is not a cross-encoder.
        ValueError: an invalid precision, max_length, max_tokens or threads.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        precision: str = "fp32",
        onnx_file: str = "",
        max_length: int = 256,
        max_tokens: int = 0,
        threads: int = 0,
    ) -> None:
        if max_tokens < 0 or threads < 0:
            raise ValueError(f"max_tokens is {max_tokens}, threads {threads}; at least 0 is needed")
        if precision not in PRECISIONS:
            raise ValueError(
                f"scoring.precision {precision!r} is not one of openvino's: {', '.join(PRECISIONS)}"
            )
        folder, self._streams = local_folder(folder), threads or cores()
        path = quantised_file(folder) if precision == "int8" else find_onnx(folder, onnx_file)
        read = read_folder(folder, max_length=max_length)
        self._pad_id, self._relevant, self._typed = read.pad_id, read.relevant, read.typed
        model = read_model(path)
        self._output = output_index(model, path)
        keep_first_token(model)
        self._unsafe = head_sizes(model) if precision == "int8" else frozenset()
        self._types = input_types(model, path)
        self._model = _compile(model, path, hint=PRECISIONS[precision], streams=self._streams)
        self._own = threading.local()  # each thread's request
        weights = [path.with_suffix(".bin")] if precision == "int8" else external_files(path)
        # Operations that are not in int8 run in bf16 if the processor has it, which changes the digits of a logit.
        hint = self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        # "int8 2": logits that were computed before the unsafe width was avoided are not reused.
        variant = "int8 2" if precision == "int8" else precision
        settings = [variant, hint, str(max_length), str(self._pad_id), *read.identity]
        settings += [f"output {self._output}"] if self._output else []
        files = [path, *weights, folder / "tokenizer.json"]
        super().__init__(
            read.encoder,
            fingerprint=fingerprint("openvino", *settings, *map(file_digest, files))[:32],
            max_tokens=max_tokens or MAX_TOKENS,
            streams=self._streams,
            reads_tags=read.reads_tags,
            precision=precision,
        )
        self._probe(path, read.encoder)

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        width = safe_width(
            max(len(row.ids) for row in rows), self._unsafe, step=1 if self.row_by_row else ROUND
        )
        inputs = padded(rows, pad_id=self._pad_id, dtypes=self._types, width=width, typed=self._typed)
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()
        try:
            self._own.request.infer(inputs)
        except MemoryError as error:
            raise OutOfMemory(shorten(str(error))) from error
        logits = self._own.request.get_output_tensor(self._output).data.copy()
        return one_logit(logits, relevant=self._relevant)

    def _probe(self, path: Path, encoder: Encoder) -> None:
        try:
            first = self.run(encoder.encode([("a", "b"), ("a", "b c d")]))
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
        except Exception as error:  # whatever the engine raises
            raise ModelError(
                f"{path} fails on two short inputs ({shorten(str(error))}); export it with dynamic batch and "
                "sequence axes, from the model whose tokenizer.json this is"
            ) from error
        if first.shape != (2,):
            raise ModelError(f"{path} returns {first.size} logits for 2 inputs; export it with a batch axis")


def head_sizes(model: openvino.Model) -> frozenset[int]:
    """Columns of the model's attention heads: 32 where 384 are split among 12 heads."""
    products = [node for node in model.get_ops() if node.get_type_name() == "MatMul"]
    # A product with weights has two axes on its right side, attention four on both.
    values = [node.input_value(1).get_partial_shape() for node in products]
    sizes = [shape[axis] for shape in values if len(shape) == 4 for axis in (2, 3)]
    return frozenset(size.get_length() for size in sizes if size.is_static)


def safe_width(longest: int, unsafe: Collection[int], *, step: int = ROUND) -> int:
    """Tokens that rows are padded to: a multiple of `step` that is not in `unsafe`."""
    width = -(-longest // step) * step
    while width in unsafe:
        width += step
    return width


def quantised_file(folder: Path) -> Path:
    """The folder's statically quantised model."""
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}; scoring.model is a local folder here")
    for file in (folder / OPENVINO_INT8, (folder / OPENVINO_INT8).with_suffix(".bin")):
        if not file.is_file():
            files = [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")]
            exact = any(precision_of(path) != "int8" for path in files)
            remedy = f"write it with: nightrank autotune {folder}"
            if not exact:
                remedy = "it is made from an ONNX file in fp32, which the folder lacks; export one"
            raise ModelError(f"no {file}; {remedy}, or set another scoring.precision or backend")
    return folder / OPENVINO_INT8


def read_model(path: Path) -> openvino.Model:
    """The graph of an ONNX or OpenVINO file."""
    try:
        return openvino.Core().read_model(str(path))
    except Exception as error:  # whatever the engine raises
        raise ModelError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be loaded: truncated or not a model, copy or export "
            f"it again: {shorten(str(error), limit=400)}"
        ) from error


def _compile(model: openvino.Model, path: Path, *, hint: str, streams: int) -> Any:
    settings: dict[str, Any] = {"NUM_STREAMS": str(streams), "INFERENCE_NUM_THREADS": streams}
    if hint:
        settings["INFERENCE_PRECISION_HINT"] = hint
    core = openvino.Core()
    if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError(
            "this processor has no bf16: OpenVINO would run fp32; set scoring.precision = 'fp32'"
        )
    try:
        return core.compile_model(model, "CPU", settings)
    except Exception as error:  # whatever the engine raises
        raise ModelError(
            f"OpenVINO cannot compile {path}: {shorten(str(error), limit=400)}; use the onnx backend"
        ) from error


def output_index(model: openvino.Model, path: Path) -> int:
    """Which of the model's outputs has the logits.

    Raises:
        ModelError: several outputs, none of which has their name.
    """
    names = [
        next((name for name in LOGITS if name in output.get_names()), min(output.get_names(), default=""))
        for output in model.outputs
    ]
    return names.index(choose_output(names, LOGITS, path))


def input_types(model: openvino.Model, path: Path) -> dict[str, type]:
    """NumPy type of each of the model's inputs."""
    inputs = {value.get_any_name(): value.get_element_type() for value in model.inputs}
    known = {"i64": np.int64, "i32": np.int32}
    if not set(INPUTS[:2]) <= set(inputs) <= set(INPUTS) or not {
        t.get_type_name() for t in inputs.values()
    } <= set(known):
        raise ModelError(
            f"{path} has the inputs {', '.join(inputs)}; needed are input_ids and attention_mask, and perhaps "
            "token_type_ids, of int64. Export a sequence classification model"
        )
    return {name: known[kind.get_type_name()] for name, kind in inputs.items()}
