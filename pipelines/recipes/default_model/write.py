"""Writes the folder of the model that ships: int8 ONNX, the tokenizer and the files of sentence-transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sentence_transformers import SentenceTransformer

from pipelines.recipes.default_model.network import Tower
from rerank_core.inference.model_folder import OWN_SETTINGS, WEIGHTS
from rerank_core.scoring.backends.bi_encoder_folder import Logit
from rerank_core.training import bi_encoder
from rerank_core.training.package import ONNX, ONNX_INT8


def write_model(tower: Tower, folder: Path, *, base: Path, logit: Logit) -> Path:
    """Write `folder`, the model as it ships but for its card, and return `folder`_fp32, the same in full precision.

    Args:
        tower: as trained.
        folder: to write.
        base: the bi-encoder's folder that it comes from, for everything but the weights.
        logit: what a cosine means.
    """
    full = folder.with_name(f"{folder.name}_fp32")
    model = SentenceTransformer(str(base), device="cpu")
    lacking = model[0].model.load_state_dict(tower.encoder_state(), strict=False)
    assert not lacking.unexpected_keys
    assert all(name.startswith("pooler.") for name in lacking.missing_keys)
    for old in (folder, full):
        shutil.rmtree(old, ignore_errors=True)
    model.save_pretrained(str(full), create_model_card=False)
    write_logit(full, logit)
    bi_encoder.export(full, full / ONNX, folder / ONNX_INT8)
    shutil.copytree(full, folder, ignore=shutil.ignore_patterns(WEIGHTS, "*.onnx"), dirs_exist_ok=True)
    return full


def write_logit(folder: Path, logit: Logit) -> None:
    """Write what a cosine of the folder's model means. It reads no tags."""
    settings = {
        "logit": {name: round(value, 4) for name, value in logit._asdict().items()},
        "reads_tags": False,
    }
    (folder / OWN_SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
