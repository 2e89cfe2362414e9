"""Writes the model folder of a training: sentence-transformers' files, ONNX files, and nightrank.json."""

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
from rerank_core.inference.model_folder import OWN_SETTINGS, read_json
from rerank_core.scoring.load import load_scorer
from rerank_core.text import shorten
from rerank_core.training import bi_encoder
from rerank_core.training.base_model import load_cross_encoder
from rerank_core.training.bi_encoder import PairBiEncoder
from rerank_core.training.export import INPUTS, export_onnx, quantise_dynamic

ONNX, ONNX_INT8 = "onnx/model.onnx", "onnx/model_int8.onnx"
_TOLERANCE = 1e-3


class Check(NamedTuple):
    """Absolute differences between the logits of the exported files and the model's, on training pairs."""

    pairs: int
    fp32_largest: float
    int8_mean: float
    int8_largest: float
    bi_encoder: bool = False  # whether the model is one


class _Logits(torch.nn.Module):
    """A transformers model that takes its inputs by position and returns its logits only."""

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

    Args:
        model: folder of the stage's model.
        folder: the folder to write.
        pairs: (query side, passage side) on which the exports are compared with the model.
        reads_tags: whether the model reads tags, for nightrank.json.
        max_length: tokens of a pair.

    Raises:
        TrainingError: the model cannot be exported, or the export's logits differ.
    """
    encoder = load_cross_encoder(model, max_length=max_length).to("cpu").eval()
    encoder.save_pretrained(str(folder), create_model_card=False)
    try:
        if isinstance(encoder, PairBiEncoder):
            bi_encoder.export(folder, folder / ONNX, folder / ONNX_INT8)
        else:
            _export(folder, encoder.tokenizer)
    except Exception as error:  # torch's exporter and ONNX Runtime raise exceptions of any class
        raise TrainingError(
            f"the model cannot be exported to ONNX ({shorten(str(error))}); its weights are in {model}"
        ) from error
    settings = read_json(folder / OWN_SETTINGS) | {"reads_tags": reads_tags}
    (folder / OWN_SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")
    return _check(encoder, folder, pairs, max_length=max_length)


def export_fp32(folder: Path, tokenizer: Any) -> Path:
    """Write a folder's classifier as ONNX in fp32 beside its safetensors, and return the file."""
    # Of the implementations of attention, the exporter can trace eager for every architecture.
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    encoded = tokenizer(["who was it"] * 2, ["It was she."] * 2, return_tensors="pt")
    sample = {name: encoded[name] for name in INPUTS if name in encoded}
    with warnings.catch_warnings():
        # the tracer's, about what a trace may miss: _check compares the logits
        warnings.simplefilter("ignore")
        export_onnx(_Logits(model, tuple(sample)), folder / ONNX, sample=sample)
    return folder / ONNX


def _export(folder: Path, tokenizer: Any) -> None:
    export_fp32(folder, tokenizer)
    quantise_dynamic(folder / ONNX, folder / ONNX_INT8)


def _check(encoder: Any, folder: Path, pairs: Sequence[tuple[str, str]], *, max_length: int) -> Check:
    expected = encoder.predict(list(pairs), activation_fn=torch.nn.Identity(), show_progress_bar=False)
    fp32, int8 = (
        np.abs(load_scorer(folder, onnx_file=name, max_length=max_length).score(pairs) - expected)
        for name in (ONNX, ONNX_INT8)
    )
    check = Check(
        len(pairs),
        float(fp32.max()),
        float(int8.mean()),
        float(int8.max()),
        isinstance(encoder, PairBiEncoder),
    )
    if not check.fp32_largest < _TOLERANCE:
        raise TrainingError(
            f"the logits of {folder / ONNX} differ from the model's by up to {check.fp32_largest:.3g}: torch cannot "
            "export this architecture correctly; its weights are complete, use them with scoring.backend = 'torch'"
        )
    return check
