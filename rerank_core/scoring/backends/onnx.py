"""Cross-encoders on ONNX Runtime: on the CPU, on CUDA, or by TensorRT.

Takes any Hugging Face or sentence-transformers cross-encoder folder that holds `tokenizer.json` and an ONNX
file: `onnx/model.onnx`, else `model.onnx`, else the only *.onnx file there. Needs neither torch nor
transformers. The precision is the file's own.

On a CPU each batch runs on one thread, several at once, and batches are small: on passages of about 140 tokens
(MiniLM-L6, 2 cores) that was 1.5 times as fast as batches of 4,096 tokens on all threads, which pad more and do not fit
the processor's cache. A dynamically quantised model gets each row alone: the scale of its activations depends on the
whole batch, so that other rows and padding would change a row's logit (by up to half of the logits' standard deviation,
as measured), and a reused score would differ from a computed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rerank_core.errors import ModelError
from rerank_core.inference.batching import padded
from rerank_core.inference.cross_encoder_folder import read_folder
from rerank_core.inference.encoding import Row
from rerank_core.inference.machine import cores
from rerank_core.inference.model_folder import file_digest, find_onnx, local_folder
from rerank_core.inference.onnx_file import (
    DYNAMIC_QUANTISATION,
    LOGITS,
    choose_output,
    external_files,
    model_holds,
    precision_of,
)
from rerank_core.inference.onnx_session import GPU_STREAMS, MAX_TOKENS, open_session, token_inputs
from rerank_core.scoring.batched import BatchedScorer, Encoder, one_logit
from rerank_core.text import fingerprint, shorten

GPU_CHUNK = 16_384


class OnnxScorer(BatchedScorer):
    """A cross-encoder in ONNX Runtime. Safe to share between threads.

    Args:
        folder: the model's folder, or its name on the Hugging Face Hub.
        onnx_file: ONNX file inside it; "" finds it.
        max_length: longest input in tokens, special tokens included.
        max_tokens: most tokens of a batch, padding included; 0 is MAX_TOKENS. Not for a dynamically quantised model.
        threads: batches that run at once; 0 is one per core, on a GPU GPU_STREAMS.
        device: a key of PROVIDERS.
        allow_fallback: run on the CPU if the device is unavailable.

    Raises:
        ModelError: the folder cannot be used, its model is not a cross-encoder, or the device is unavailable.
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
        self._pad_id, self._relevant, self._typed = read.pad_id, read.relevant, read.typed
        self._session = open_session(path, device=device, allow_fallback=allow_fallback)
        self.device = self._session.device
        self._types = token_inputs(self._session, path, export="a sequence classification model")
        self._output = choose_output(self._session.outputs, LOGITS, path)
        files = [path, *external_files(path), folder / "tokenizer.json"]
        # The digits of a logit differ between devices, so a score is not reused across them.
        engine = ("onnxruntime",) if self.device == "cpu" else ("onnxruntime", self.device)
        settings = (str(max_length), str(self._pad_id), *read.identity)
        super().__init__(
            read.encoder,
            fingerprint=fingerprint(*engine, *settings, *map(file_digest, files))[:32],
            max_tokens=1
            if model_holds(path, DYNAMIC_QUANTISATION)
            else max_tokens or MAX_TOKENS[self.device],
            streams=threads or (cores() if self.device == "cpu" else GPU_STREAMS),
            reads_tags=read.reads_tags,
            chunk=512 if self.device == "cpu" else GPU_CHUNK,
            precision=precision_of(path),
        )
        self._probe(path, read.encoder, last=read.last_id)

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        inputs = padded(rows, pad_id=self._pad_id, dtypes=self._types, typed=self._typed)
        return one_logit(self._session.run(self._output, inputs), relevant=self._relevant)

    def _probe(self, path: Path, encoder: Encoder, *, last: int) -> None:
        """Run two inputs of different lengths, then the vocabulary's last id, and check the output's shape."""
        try:
            first = self.run(encoder.encode([("a", "b"), ("a", "b c d")]))
            values = {"input_ids": last, "attention_mask": 1, "token_type_ids": 0}
            inputs = {name: np.full((1, 1), values[name], dtype) for name, dtype in self._types.items()}
            self._session.run(self._output, inputs)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
        except Exception as error:
            raise ModelError(
                f"{path} fails on two short inputs ({shorten(str(error))}); export it with dynamic batch and "
                f"sequence axes, from the model whose tokenizer.json this is (its ids go up to {last})"
            ) from error
        if first.shape != (2,):
            raise ModelError(f"{path} returns {first.size} logits for 2 inputs; export it with a batch axis")
