"""What belongs to a model's folder, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.registry.model_files import files_fingerprint, model_files
from rerank_core.errors import RegistryError


def test_links_are_followed_and_working_files_left_out(models: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "linked"
    folder.mkdir()
    for path in models[0].iterdir():
        (folder / path.name).symlink_to(path)
    for name in ("tensorboard", ".git", "__pycache__"):
        (folder / name).mkdir()
        (folder / name / "events").write_text("x")
    assert model_files(folder) == model_files(models[0])


def test_the_fingerprint_is_of_names_and_contents(models: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(models[0], folder)
    same = files_fingerprint(model_files(folder))
    assert same == files_fingerprint(model_files(models[0])) != files_fingerprint(model_files(models[1]))
    (folder / "config.json").rename(folder / "other.json")
    (folder / "config.json").write_text("{}")
    assert files_fingerprint(model_files(folder)) != same


def test_what_is_no_finished_model_is_refused(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no model's folder"):
        model_files(tmp_path / "nothing")
    shutil.copytree(models[0], tmp_path / "copy")
    (tmp_path / "copy" / "_training").mkdir()
    with pytest.raises(RegistryError, match="not finished"):
        model_files(tmp_path / "copy")
