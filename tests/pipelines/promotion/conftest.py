"""A published night of the word models' set, scored by the registry's serving model."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from pipelines.nightly.run import run
from pipelines.registry.store import Registry
from pipelines.storage import lock
from rerank_core.config.night import Config, change_paths
from schemas.manifest import Manifest
from tests.support.tiny import DAY
from tests.support.word_models import BAD, GOOD, SERVING, write_word_model, write_word_night


@dataclasses.dataclass(frozen=True)
class Loop:
    """A night's configuration, its registry, and folders of models by name."""

    config: Config
    registry: Registry
    models: dict[str, Path]
    serving: str
    manifest: Manifest

    def changed(self, **sections: dict[str, object]) -> Config:
        """The configuration with other values in some sections."""
        config = self.config
        for name, values in sections.items():
            section = dataclasses.replace(getattr(config, name), **values)
            config = dataclasses.replace(config, **{name: section})
        return config


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path], str, Manifest]:
    """The folder of the night, the models, the serving one's id, and the manifest. Read only."""
    base = tmp_path_factory.mktemp("loop")
    folder = base / "night"
    config = write_word_night(folder)
    models = {
        "serving": write_word_model(base / "models" / "serving", SERVING),
        "good": write_word_model(base / "models" / "good", GOOD),
        "another": write_word_model(base / "models" / "another", {**GOOD, "thingd": 0.1}),
        **{name: write_word_model(base / "models" / name, **options) for name, options in BAD.items()},
    }
    registry = Registry(config.registry.path)
    serving = registry.add(models["serving"])
    registry.promote(serving.id, reason="the first")
    return folder, models, serving.id, run(config, run_date=DAY)


@pytest.fixture
def loop(made: tuple[Path, dict[str, Path], str, Manifest], tmp_path: Path) -> Loop:
    """A copy of it, which may be changed."""
    folder, models, serving, manifest = made
    shutil.copytree(folder, tmp_path / "night")
    config = change_paths(
        write_word_night(folder), lambda value: str(value).replace(str(folder), str(tmp_path / "night"))
    )
    return Loop(config, Registry(config.registry.path), models, serving, manifest)


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "TIMING", lock.Timing(sleep=lambda seconds: None))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
