"""The files of a model's folder, and their fingerprint."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.registry.entry import StoredFile
from pipelines.storage import filesystem
from rerank_core.errors import RegistryError
from rerank_core.inference.model_folder import file_digest
from rerank_core.text import fingerprint

LEFT_OUT = ("_training", "tensorboard", ".git", ".cache", "__pycache__")
"""Folders beside a model's files that are no part of it."""


def model_files(folder: Path) -> dict[str, StoredFile]:
    """Every file of a model's folder with its checksum, by its path; links are followed.

    Raises:
        RegistryError: no folder, no configuration in it, or an unfinished training.
    """
    if not (folder / "config.json").is_file():
        raise RegistryError(
            f"{folder} is no model's folder: it has no config.json; name the folder of a model"
        )
    if (folder / "_training").exists():
        raise RegistryError(f"{folder} is of a training that is not finished; resume it first")
    found = {}
    for base, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in names:
            path = Path(base, name)
            if path.is_file() and not filesystem.is_temporary(path.as_posix()):
                info = StoredFile(path.stat().st_size, file_digest(path))
                found[path.relative_to(folder).as_posix()] = info
    return dict(sorted(found.items()))


def files_fingerprint(files: dict[str, StoredFile]) -> str:
    """64 hex digits over the names and contents of a model's files."""
    return fingerprint(*(part for name in sorted(files) for part in (name, files[name].sha256)))
