"""A registry on a disk and in an object store, and tiny models to put into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.registry.store import Registry
from pipelines.storage import lock
from tests.support.object_store import MemoryFileSystem
from tests.support.tiny_onnx import write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of three models. Read only."""
    base = tmp_path_factory.mktemp("models")
    return [write_model(base / f"m{seed}", seed=seed) for seed in range(3)]


@pytest.fixture(params=["disk", "store"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry, once on each kind of storage."""
    MemoryFileSystem.objects.clear()
    yield Registry(str(tmp_path / "registry") if request.param == "disk" else "mem://bucket/registry")
    MemoryFileSystem.before = None
    MemoryFileSystem.objects.clear()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "TIMING", lock.Timing(sleep=lambda seconds: None))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
