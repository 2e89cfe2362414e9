"""A bi-encoder's model on ONNX Runtime, loaded and batched as a cross-encoder is in onnx.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rerank_core.errors import ModelError
from rerank_core.inference.batching import padded
from rerank_core.inference.cross_encoder_folder import check_vocabulary
from rerank_core.inference.encoding import Row
from rerank_core.inference.machine import cores
from rerank_core.inference.model_folder import check_max_length, file_digest, find_onnx, padding_id, read_json
from rerank_core.inference.onnx_file import DYNAMIC_QUANTISATION, external_files, model_holds, precision_of
from rerank_core.inference.onnx_session import GPU_STREAMS, MAX_TOKENS, open_session, token_inputs
from rerank_core.inference.tokenizer_files import read_tokenizer
from rerank_core.scoring.backends.bi_encoder_folder import SingleEncoder, pool, read_sentence_folder

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
        threads: int,
        device: str,
        allow_fallback: bool,
    ) -> None:
        path = find_onnx(folder, onnx_file)
        config = read_json(folder / "config.json")
        self.folder, self.settings = folder, read_sentence_folder(folder, pooling=pooling)
        read = read_tokenizer(folder, config)
        known = config["vocab_size"] if isinstance(config.get("vocab_size"), int) else read.size
        check_vocabulary(read.tokenizer, known, folder)
        self._pad_id = padding_id(read.tokenizer, folder, config, size=known)
        check_max_length(max_length, config, folder=folder)
        self.encoder = SingleEncoder(
            read.tokenizer,
            max_length=max_length,
            vocabulary=known,
            lower=self.settings.lower,
            side=read.truncation_side,
        )
        self._session = open_session(path, device=device, allow_fallback=allow_fallback)
        self.device = self._session.device
        self._types = token_inputs(self._session, path, export="an embedding model")
        self._output = next((name for name in OUTPUTS if name in self._session.outputs), "")
        if not self._output:  # not even a single output: its name is what tells an embedding from a logit
            raise ModelError(
                f"{path} is not an embedding model: its outputs are {', '.join(self._session.outputs)}; needed is one "
                f"of {', '.join(OUTPUTS)}"
            )
        self.max_tokens = 1 if model_holds(path, DYNAMIC_QUANTISATION) else MAX_TOKENS[self.device]
        self.precision = precision_of(path)
        self.streams = threads or (cores() if self.device == "cpu" else GPU_STREAMS)
        files = [path, *external_files(path), folder / "tokenizer.json"]
        settings = [*read.changes, *(["cut left"] if read.truncation_side == "left" else [])]
        self.identity = ["onnxruntime", self.device, self._output, *settings, *map(file_digest, files)]

    def embed(self, rows: Sequence[Row]) -> np.ndarray:
        inputs = padded(rows, pad_id=self._pad_id, dtypes=self._types)
        output = self._session.run(self._output, inputs).astype(np.float32)
        if output.ndim == 2:
            return output
        mask = inputs["attention_mask"].astype(np.float32)
        return np.asarray(pool(output, mask, self.settings.pooling), np.float32)
