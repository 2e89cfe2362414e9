"""Makes the folder that a training gives: a CrossEncoder, its ONNX twins, and what says whether it reads tags."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from rerank_core.errors import TrainingError
from rerank_core.scoring.load import load_scorer
from rerank_core.text import shorten
from rerank_core.training.base_model import load_cross_encoder
from rerank_core.training.export import export_onnx, quantise_dynamic

ONNX, ONNX_INT8 = "onnx/model.onnx", "onnx/model_int8.onnx"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_TOLERANCE = 1e-3


class Check(NamedTuple):
    """The exported files beside the model itself, on pairs of the training: differences of logits."""

    pairs: int
    fp32_largest: float
    int8_mean: float
    int8_largest: float


class _Logits(torch.nn.Module):
    """A transformers model with its inputs by their places, and its logits alone."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def write_package(
    model: Path, folder: Path, *, pairs: Sequence[tuple[str, str]], reads_tags: bool, max_length: int
) -> Check:
    """Write `folder` from a stage's model: safetensors, tokenizer, ONNX in fp32 and int8, nightrank.json.

    Raises:
        TrainingError: the model cannot be exported, or its export gives other logits.
    """
    encoder = load_cross_encoder(model, max_length=max_length).to("cpu").eval()
    encoder.save_pretrained(str(folder), create_model_card=False)
    try:
        _export(folder, encoder.tokenizer)
    except Exception as error:  # torch's exporter and ONNX Runtime raise of every class
        raise TrainingError(
            f"the model cannot be written as ONNX ({shorten(str(error))}); its weights are whole in {model}"
        ) from error
    (folder / "nightrank.json").write_text(json.dumps({"reads_tags": reads_tags}) + "\n", encoding="utf-8")
    return _check(encoder, folder, pairs, max_length=max_length)


def _export(folder: Path, tokenizer: Any) -> None:
    # Eager attention is what the exporter follows through every kind of model.
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    encoded = tokenizer(["who was it"] * 2, ["It was she."] * 2, return_tensors="pt")
    sample = {name: encoded[name] for name in _INPUTS if name in encoded}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the tracer's, of what a trace may get wrong: _check looks at what it got
        export_onnx(_Logits(model, tuple(sample)), folder / ONNX, sample=sample)
    quantise_dynamic(folder / ONNX, folder / ONNX_INT8)


def _check(encoder: Any, folder: Path, pairs: Sequence[tuple[str, str]], *, max_length: int) -> Check:
    wanted = encoder.predict(list(pairs), activation_fn=torch.nn.Identity(), show_progress_bar=False)
    full, small = (
        np.abs(load_scorer(folder, onnx_file=name, max_length=max_length).score(pairs) - wanted)
        for name in (ONNX, ONNX_INT8)
    )
    check = Check(len(pairs), float(full.max()), float(small.mean()), float(small.max()))
    if not check.fp32_largest < _TOLERANCE:
        raise TrainingError(
            f"{folder / ONNX} gives logits that differ by up to {check.fp32_largest:.3g} from the model's: this kind "
            "of model does not survive torch's export; its weights are whole, load them with scoring.backend = 'torch'"
        )
    return check
