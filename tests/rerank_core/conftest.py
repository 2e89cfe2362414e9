"""Tiny cross-encoders as fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_onnx import write_model, write_transformer

MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """`make_model(name, file=..., config=..., external=..., **cross_encoder's)` -> the model's folder."""

    def make(name: str = "model", **options: Any) -> Path:
        return write_model(tmp_path / name, **options)

    return make


@pytest.fixture
def make_transformer(tmp_path: Path) -> MakeModel:
    """`make_transformer(kind, labels=1, **config)`: a tiny random cross-encoder of that kind, with fp32 ONNX."""
    pytest.importorskip("torch", reason="needs torch to make the model: pip install 'nightrank[train]'")
    pytest.importorskip("transformers")

    def make(kind: str = "bert", **options: Any) -> Path:
        return write_transformer(tmp_path / kind, kind, **options)

    return make
