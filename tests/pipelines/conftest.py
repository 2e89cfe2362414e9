"""A real model for whole nights: tiny, random, on every engine that is installed; and an object store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.storage import lock
from tests.support.object_store import MemoryFileSystem


@pytest.fixture(scope="session")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT's folder with safetensors and fp32 ONNX. Read only."""
    for module in ("onnx", "torch", "transformers"):
        pytest.importorskip(module, reason="needs it to make the model: pip install 'nightrank[train]'")
    from tests.support.tiny_onnx import write_transformer

    # room for what transformers adds
    return write_transformer(tmp_path_factory.mktemp("model") / "bert", vocab_size=128)


@pytest.fixture
def model(transformer: Path, tmp_path: Path) -> Path:
    """A copy of the model, which may be written to."""
    shutil.copytree(transformer, tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The path of an empty output folder in an object store, whose lock is not waited for."""
    monkeypatch.setattr(lock, "TIMING", lock.Timing(sleep=lambda _: None))
    MemoryFileSystem.objects.clear()
    yield "mem://bucket/output"
    MemoryFileSystem.before = None
    MemoryFileSystem.objects.clear()
