"""A bi-encoder's model on PyTorch, loaded as `rerank_core.scoring.backends.torch` loads a cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

from rerank_core.inference.batching import padded
from rerank_core.inference.cross_encoder_folder import check_vocabulary
from rerank_core.inference.encoding import Row, unlimited
from rerank_core.inference.model_folder import check_max_length
from rerank_core.inference.torch_device import (
    MAX_TOKENS,
    choose_device,
    fill_id,
    input_types,
    open_model,
    to_device,
    vocabulary_size,
    within_memory,
)
from rerank_core.scoring.backends.bi_encoder_folder import SingleEncoder, pool, read_sentence_folder


class TorchEmbedder:
    """See `rerank_core.scoring.backends.bi_encoder.Embedder`; its arguments are BiEncoderScorer's."""

    streams = 1  # on all of torch's threads

    def __init__(
        self,
        model: str | Path,
        *,
        pooling: str,
        max_length: int,
        threads: int,
        device: str,
        precision: str,
        allow_fallback: bool,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = choose_device(device, allow_fallback=allow_fallback)
        # An untrained pooler is in no file, and its output is not used.
        loaded = open_model(AutoModel, model, precision=precision, optional=("pooler.",))
        self.folder, tokenizer = loaded.folder, loaded.tokenizer
        self.settings = read_sentence_folder(self.folder, pooling=pooling)
        spare = [tokenizer.pad_token_id or 0, 0]  # 0: the mask alone counts, so any id will do
        self._pad_id = fill_id(loaded.model, tokenizer, spare=spare, folder=self.folder)
        check_max_length(max_length, loaded.config, folder=self.folder)
        fast, known = unlimited(tokenizer.backend_tokenizer), vocabulary_size(loaded.model)
        check_vocabulary(fast, known, self.folder)
        self.encoder = SingleEncoder(
            fast,
            max_length=max_length,
            vocabulary=known,
            lower=self.settings.lower,
            side=tokenizer.truncation_side,
        )
        self._model = loaded.model.to(self.device)
        self._types = input_types(loaded.model, tokenizer)
        self.max_tokens, self.precision = MAX_TOKENS[self.device], precision
        side = [] if tokenizer.truncation_side == "right" else ["cut left"]
        self.identity = ["torch", self.device, precision, *side, *loaded.digests]

    def embed(self, rows: Sequence[Row]) -> np.ndarray:
        return within_memory(lambda: self._embed(rows))

    def _embed(self, rows: Sequence[Row]) -> np.ndarray:
        arrays = padded(rows, pad_id=self._pad_id, dtypes=self._types)
        tensors = {name: to_device(array, self.device) for name, array in arrays.items()}
        hidden = self._model(**tensors).last_hidden_state.float()
        pooled = pool(hidden, tensors["attention_mask"].float(), self.settings.pooling)
        return np.asarray(pooled.cpu().numpy(), np.float32)
