"""From scoring.model = "registry:serving" or "registry:ID" to a folder on this machine.

A model of an object store is fetched once into the user's cache folder, and its checksums are checked each time. The
workers of a night on other machines fetch it for themselves; from a local registry they must find the same folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.registry.entry import Entry
from pipelines.registry.store import Registry
from pipelines.storage import filesystem
from rerank_core.config.night import Config
from rerank_core.errors import ConfigError, RegistryError
from rerank_core.inference.model_folder import file_digest
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import Scorer
from rerank_core.scoring.tuning import default_path
from rerank_core.text import fingerprint

PREFIX, SERVING = "registry:", "serving"


class DamagedModel(RegistryError):
    """Files of a model are not what its entry says."""


class Resolved(NamedTuple):
    """A configuration whose model is a folder."""

    config: Config
    entry: dict[str, Any] | None = None  # for the manifest; None: the model is not of a registry
    note: str = ""  # what was done less well than configured


def resolve(config: Config) -> Config:
    """The configuration with a folder in place of "registry:..."; see `resolve_model`."""
    return resolve_model(config).config


def resolve_model(config: Config) -> Resolved:
    """Find the model that scoring.model names, if it names one of the registry.

    "registry:serving" is the bundled model as long as no model of the registry serves, so that the first nights give
    the first training its data.

    Raises:
        ConfigError: registry.path is not set.
        RegistryError: there is no such model, or it is damaged.
    """
    name = config.scoring.model
    if not name.startswith(PREFIX):
        return Resolved(config)
    if not config.registry.path:
        raise ConfigError(f"scoring.model = {name!r} needs registry.path, the folder of the models; set it")
    registry, wanted = Registry(config.registry.path), name.removeprefix(PREFIX)
    entry = registry.serving() if wanted == SERVING else registry.entry(wanted)
    if entry is None:
        note = (
            f"no model of the registry {registry.path} serves yet, so the model that ships with Nightrank scored; "
            "nightrank promote lets one serve, nightrank models --add FOLDER adds one"
        )
        return Resolved(with_model(config, ""), None, note)
    return Resolved(with_model(config, str(local_model(registry, entry))), describe(entry))


def with_model(config: Config, model: str) -> Config:
    """The configuration with another model."""
    return dataclasses.replace(config, scoring=dataclasses.replace(config.scoring, model=model))


def describe(entry: Entry) -> dict[str, Any]:
    """The entry as a manifest shows it: without the list of files."""
    fields: dict[str, Any] = dataclasses.asdict(entry)
    return {name: value for name, value in fields.items() if name not in ("files", "format")}


def local_model(registry: Registry, entry: Entry) -> Path:
    """The model's folder on this machine, checked.

    Raises:
        RegistryError: a file is missing or damaged, or the cache folder cannot be written.
    """
    path = registry.model_path(entry.id)
    if filesystem.is_local(path):
        _check(
            Path(path),
            entry,
            remedy="restore it, or go back to the model before: nightrank promote --rollback",
        )
        return Path(path)
    return _fetch(registry, entry)


def load_registered(registry: str, model: str, **options: Any) -> Scorer:
    """Load a model of a registry in an object store, wherever this process runs; it is fetched if it is not here."""
    store = Registry(registry)
    return load_scorer(local_model(store, store.stored(model)), **options)


def fetched_id(config: Config) -> str:
    """The id of the model, if its folder is one that was fetched from the registry; else ""."""
    folder, path = Path(config.scoring.model), config.registry.path
    return folder.name if path and folder.parent == _cache(path) else ""


def _cache(registry: str) -> Path:
    return default_path().parent / "models" / fingerprint(registry)[:12]


def _fetch(registry: Registry, entry: Entry) -> Path:
    target = _cache(registry.path) / entry.id
    if target.is_dir():
        with contextlib.suppress(RegistryError):  # damaged: fetched again
            _check(target, entry, remedy="")
            return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="_fetching-", dir=target.parent) as folder:
            whole = Path(folder) / "model"
            for name in entry.files:
                copy = _inside(whole, entry, name)
                filesystem.transfer(filesystem.join(registry.model_path(entry.id), name), str(copy))
            _check(whole, entry, remedy="add the model again")
            filesystem.put_folder(str(whole), str(target))
    except OSError as error:
        raise RegistryError(
            f"cannot fetch model {entry.id} from {registry.path} to {target.parent} ({error.strerror or error}); set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from None
    return target


def _check(folder: Path, entry: Entry, *, remedy: str) -> None:
    """Compare every file with the entry: scores of a damaged model would be published unseen."""
    for name, file in entry.files.items():
        path = _inside(folder, entry, name)
        if not path.is_file():
            raise DamagedModel(f"model {entry.id} lacks {path}; {remedy}")
        if file_digest(path) != file.sha256:
            raise DamagedModel(f"{path} of model {entry.id} is damaged: it has another checksum; {remedy}")


def _inside(folder: Path, entry: Entry, name: str) -> Path:
    """The place of a model's file in a folder; an entry that somebody wrote could name one elsewhere."""
    path = folder / os.path.normpath(name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DamagedModel(
            f"model {entry.id} names the file {name!r:.80} outside of its folder; do not use it"
        )
    return path
