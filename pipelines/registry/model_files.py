"""The files of a model's folder: their fingerprint, and their way into a registry."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

from pipelines.registry.entry import Entry, StoredFile, to_json
from pipelines.storage import filesystem
from pipelines.storage.filesystem import join
from rerank_core.errors import RegistryError
from rerank_core.inference.model_folder import file_digest
from rerank_core.text import fingerprint

MODELS, ENTRY, ADDING = "models", "entry.json", "_adding-"
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


def model_ids(registry: str) -> list[str]:
    """Sorted ids of the models that are in a registry whole."""
    folder = join(registry, MODELS)
    if filesystem.is_local(folder):
        paths = filesystem.files(folder, f"*/{ENTRY}")
    else:  # one listing: in an object store "*" may not stop at "/"
        paths = [
            name for name in filesystem.listing(folder) if name.count("/") == 1 and name.endswith(f"/{ENTRY}")
        ]
    return sorted(path.split("/")[-2] for path in paths)


def put_model(registry: str, folder: Path, entry: Entry, *, check: Callable[[], None]) -> None:
    """Write a model's folder whole: by one rename, or on an object store with its entry last.

    Args:
        registry: path of the registry.
        folder: of the model.
        entry: of the model.
        check: raises if the registry is no longer locked: who has the lock now may have removed what was written.

    Raises:
        RegistryError: a file changed since it was listed.
    """
    target = join(registry, MODELS, entry.id)
    local = filesystem.is_local(registry)
    base = join(registry, f"{ADDING}{uuid.uuid4().hex}") if local else target
    for name, file in entry.files.items():
        copy = join(base, "model", name)
        filesystem.transfer(str(folder / name), copy)
        if local and file_digest(Path(copy)) != file.sha256:
            raise RegistryError(f"{folder / name} changed while it was added; add the folder again")
    check()
    filesystem.write_bytes(join(base, ENTRY), to_json(entry))
    if local:
        filesystem.flush(base)
        filesystem.put_folder(base, target)


def clean_additions(registry: str, known: Collection[str]) -> None:
    """Remove what additions left that were killed; `known` are the ids of whole models."""
    if filesystem.is_local(registry):
        for path in Path(registry).glob(f"{ADDING}*"):
            filesystem.remove(str(path))
        return
    folder = join(registry, MODELS)
    for name in {path.partition("/")[0] for path in filesystem.listing(folder)} - set(known):
        filesystem.remove(join(folder, name))
