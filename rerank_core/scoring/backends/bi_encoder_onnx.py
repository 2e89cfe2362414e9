"""A bi-encoder's model on ONNX Runtime, loaded and batched as in onnx.py beside this file, for its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rerank_core.errors import ModelError, OutOfMemory
from rerank_core.inference.batching import padded
from rerank_core.inference.encoding import Row, load_tokenizer
from rerank_core.inference.machine import cores
from rerank_core.inference.model_folder import check_max_length, file_digest, find_onnx, padding_id, read_json
from rerank_core.inference.onnx_file import DYNAMIC_QUANTISATION, INPUTS, external_files, model_holds
from rerank_core.inference.onnx_session import (
    GPU_STREAMS,
    INTEGERS,
    MAX_TOKENS,
    OUT_OF_MEMORY,
    device_of,
    open_session,
)
from rerank_core.scoring.backends.bi_encoder_folder import SingleEncoder, pool, read_sentence_folder
from rerank_core.text import shorten

# An output that is pooled already, then those that are not.
OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings")


class OnnxEmbedder:
    """See `rerank_core.scoring.backends.bi_encoder.Embedder`; its arguments are BiEncoderScorer's."""

    def __init__(
        self,
        folder: Path,
        *,
        onnx_file: str,
        pooling: str,
        max_length: int,
        device: str,
        allow_fallback: bool,
    ) -> None:
        path = find_onnx(folder, onnx_file)
        config = read_json(folder / "config.json")
        self.folder, self.settings = folder, read_sentence_folder(folder, pooling=pooling)
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        self._pad_id = padding_id(tokenizer, folder, config)
        check_max_length(max_length, config, pad_id=self._pad_id, folder=folder)
        self.encoder = SingleEncoder(tokenizer, max_length=max_length, lower=self.settings.lower)
        self._session = open_session(path, device=device, allow_fallback=allow_fallback)
        self.device = device_of(self._session)
        self._types = {node.name: INTEGERS.get(node.type) for node in self._session.get_inputs()}
        outputs = [output.name for output in self._session.get_outputs()]
        self._output = next((name for name in OUTPUTS if name in outputs), "")
        unknown = [name for name, kind in self._types.items() if name not in INPUTS or kind is None]
        if not self._output or unknown or not set(INPUTS[:2]) <= set(self._types):
            raise ModelError(
                f"{path} is no text embedder: from {', '.join(self._types)} it makes {', '.join(outputs)}; export a "
                f"model that takes input_ids and attention_mask and gives one of: {', '.join(OUTPUTS)}"
            )
        self.max_tokens = 1 if model_holds(path, DYNAMIC_QUANTISATION) else MAX_TOKENS[self.device]
        self.streams = cores() if self.device == "cpu" else GPU_STREAMS
        files = [path, *external_files(path), folder / "tokenizer.json"]
        self.identity = ["onnxruntime", self.device, self._output, *map(file_digest, files)]

    def embed(self, rows: Sequence[Row]) -> np.ndarray:
        wanted = {name: kind for name, kind in self._types.items() if kind is not None}
        inputs = padded(rows, pad_id=self._pad_id, dtypes=dict(wanted))
        try:
            output = np.asarray(self._session.run([self._output], inputs)[0]).astype(np.float32)
        except Exception as error:  # onnxruntime's own classes share no base but Exception
            if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
                raise OutOfMemory(shorten(str(error))) from error
            raise
        if output.ndim == 2:
            return output
        mask = inputs["attention_mask"].astype(np.float32)
        return np.asarray(pool(output, mask, self.settings.pooling), np.float32)
