"""Cross-encoders on PyTorch: any sequence classifier that transformers loads, on the CPU or on a GPU.

Takes a folder or a name on the Hugging Face Hub, and needs no export. PairEncoder makes the rows, so that a passage
among many queries' candidates is tokenised once, and BERT, RoBERTa and ModernBERT architectures run without padding
(see torch_varlen.py). In half precision the last layer stays in float32: logits with 8 bits of mantissa have many
ties, which cost ranking quality. On a CPU one batch runs at a time on all of torch's threads, since the process has
one pool of them; the onnx backend is faster there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from rerank_core.errors import ModelError
from rerank_core.inference.batching import padded
from rerank_core.inference.cross_encoder_folder import read_pairs
from rerank_core.inference.encoding import Row, unlimited
from rerank_core.inference.torch_device import (
    CHUNK,
    MAX_TOKENS,
    choose_device,
    fill_id,
    input_types,
    open_model,
    to_device,
    vocabulary_size,
    within_memory,
)
from rerank_core.scoring.backends.torch_varlen import Unpadded, can_unpad
from rerank_core.scoring.batched import BatchedScorer, Encoder, one_logit
from rerank_core.text import fingerprint, shorten


class TorchScorer(BatchedScorer):
    """A cross-encoder in PyTorch. Safe to share between threads.

    Attributes: `device`; `attention`, "padded" or "unpadded".

    Args:
        model: a folder, or a name on the Hugging Face Hub.
        max_length: longest input in tokens, special tokens included.
        max_tokens: most tokens of a batch, padding included; 0 is MAX_TOKENS.
        threads: torch's threads, for the whole process; 0 leaves them as they are.
        device: "cpu" or "cuda".
        precision: "fp32", "bf16" or "fp16", of weights and activations; logits are float32 always.
        compile: with torch.compile; rows are padded then, since it needs few shapes, and the first batches are slow.
        allow_fallback: run on the CPU if there is no GPU.
        unpadded: run without padding if the architecture and the device allow it.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: the model cannot be used, is not a cross-encoder, or the device is unavailable.
        ValueError: an invalid setting.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        max_length: int = 256,
        max_tokens: int = 0,
        threads: int = 0,
        device: str = "cpu",
        precision: str = "fp32",
        compile: bool = False,
        allow_fallback: bool = False,
        unpadded: bool = True,
        trust_remote_code: bool = False,
    ) -> None:
        if max_tokens < 0 or threads < 0:
            raise ValueError(f"max_tokens is {max_tokens}, threads {threads}; at least 0 is needed")
        self.device = choose_device(device, allow_fallback=allow_fallback)
        loaded = open_model(
            AutoModelForSequenceClassification,
            model,
            precision=precision,
            trust_remote_code=trust_remote_code,
        )
        pairs = read_pairs(
            loaded.folder,
            loaded.config,
            unlimited(loaded.tokenizer.backend_tokenizer),
            max_length=max_length,
            side=loaded.tokenizer.truncation_side,
            vocabulary=vocabulary_size(loaded.model),
        )
        encoder, self._relevant = pairs.encoder, pairs.relevant
        self._pad_id = fill_id(
            loaded.model, loaded.tokenizer, spare=encoder.spare_ids(), folder=loaded.folder
        )
        if threads:
            torch.set_num_threads(threads)
        if precision != "fp32":
            _keep_head_in_float32(loaded.model)
        self._types = input_types(loaded.model, loaded.tokenizer)
        self._place(loaded.model, compile=compile, unpadded=unpadded)
        settings = [precision, self.device, self.attention, str(compile), str(max_length), str(self._pad_id)]
        settings += pairs.identity
        super().__init__(
            encoder,
            fingerprint=fingerprint("torch", *settings, *loaded.digests)[:32],
            max_tokens=max_tokens or MAX_TOKENS[self.device],
            reads_tags=loaded.reads_tags,
            chunk=CHUNK[self.device],
            precision=precision,
        )
        self._probe(loaded.folder, encoder)

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        return within_memory(
            lambda: one_logit(self._forward(rows).float().cpu().numpy(), relevant=self._relevant)
        )

    def _place(self, model: Any, *, compile: bool, unpadded: bool) -> None:
        """Move the model to its device, and choose between padded and unpadded rows."""
        model.to(self.device)
        self._unpadded = None
        if unpadded and not compile and can_unpad(model, device=self.device):
            typed = "token_type_ids" in self._types
            self._unpadded = Unpadded(model, device=self.device, typed=typed)
        self._model = torch.compile(model, dynamic=True) if compile else model
        self.attention = "unpadded" if self._unpadded else "padded"

    def _forward(self, rows: Sequence[Row]) -> Any:
        if self._unpadded:
            return self._unpadded(rows)
        arrays = padded(rows, pad_id=self._pad_id, dtypes=self._types)
        return self._model(**{name: to_device(array, self.device) for name, array in arrays.items()}).logits

    def _probe(self, folder: Path, encoder: Encoder) -> None:
        """Run two inputs of different lengths, and check the output's shape."""
        try:
            self.run(encoder.encode([("a", "b"), ("a", "b c d")]))
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from None
        except Exception as error:
            raise ModelError(
                f"the model in {folder} fails on two short inputs ({shorten(str(error))}); copy its weights, "
                "config.json and tokenizer from one model"
            ) from error


def _keep_head_in_float32(model: Any) -> None:
    """Compute the logits, and only these, in float32."""
    labels = model.config.num_labels
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == labels]
    for head in linear[-1:]:
        head.float()
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
