"""The base model of a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rerank_core.errors import ModelError
from rerank_core.training.base_model import load_cross_encoder
from tests.support.tiny_models import write_cross_encoder


def test_a_base_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load model = .*nothing"):
        load_cross_encoder(tmp_path / "nothing", max_length=32)
    folder = write_cross_encoder(tmp_path / "bert")
    with pytest.raises(ModelError, match="max_length is 65, but .* set max_length = 64 or lower"):
        load_cross_encoder(folder, max_length=65)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="model.safetensors of an encoder"):
        load_cross_encoder(folder, max_length=32)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert"
