"""From "registry:serving" to a folder: on a disk, in an object store, damaged, and through whole nights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.beam_options import beam_options
from pipelines.nightly.models import scorer_loader
from pipelines.nightly.run import run
from pipelines.registry.resolve import fetched_id, local_model, resolve, resolve_model
from pipelines.registry.store import Registry
from pipelines.storage import filesystem
from rerank_core.config.night import Config
from rerank_core.errors import ConfigError, RegistryError
from rerank_core.scoring.load import load_scorer
from tests.support.object_store import MemoryFileSystem
from tests.support.tiny import DAY, Tiny, make_config, rows


def configured(tiny: Tiny, output: Path, registry: Registry, model: str, **sections: Any) -> Config:
    return make_config(
        tiny, output, scoring={"model": model, "max_length": 32}, registry={"path": registry.path}, **sections
    )


def test_a_model_from_elsewhere_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    config = make_config(tiny, tmp_path, scoring={"model": "owner/name"})
    assert resolve_model(config) == (config, None, "")


def test_without_a_path_there_is_no_registry(tiny: Tiny, tmp_path: Path) -> None:
    config = make_config(tiny, tmp_path, scoring={"model": "registry:serving"})
    with pytest.raises(ConfigError, match=r"needs registry\.path"):
        resolve(config)


def test_a_model_by_its_id_or_as_the_serving_one(
    tiny: Tiny, tmp_path: Path, registry: Registry, models: list[Path]
) -> None:
    entry = registry.add(models[0])
    config = configured(tiny, tmp_path, registry, f"registry:{entry.id}")
    resolved = resolve_model(config)
    assert resolved.entry
    assert (resolved.entry["id"], resolved.note) == (entry.id, "")
    folder = Path(resolved.config.scoring.model)
    direct = load_scorer(models[0], max_length=32)
    pairs = [("who wrote dune", "dune was written by frank herbert"), ("who", "sand moves")]
    scorer = load_scorer(folder, max_length=32)
    assert scorer.fingerprint == direct.fingerprint
    assert scorer.score(pairs).tolist() == direct.score(pairs).tolist()
    registry.promote(entry.id, reason="first")
    serving = resolve_model(configured(tiny, tmp_path, registry, "registry:serving"))
    assert serving.entry
    assert serving.entry["state"] == "serving"
    assert serving.config.scoring.model == resolved.config.scoring.model


@pytest.mark.parametrize(
    "model", ["registry:", "registry:20260101-0123456789ab", "registry:../x", "registry:*"]
)
def test_an_unknown_model_names_those_that_are_there(
    tiny: Tiny, tmp_path: Path, registry: Registry, models: list[Path], model: str
) -> None:
    entry = registry.add(models[0])
    with pytest.raises(RegistryError, match=f"it has: {entry.id}"):
        resolve(configured(tiny, tmp_path, registry, model))


def test_a_damaged_model_is_refused(tiny: Tiny, tmp_path: Path, models: list[Path]) -> None:
    registry = Registry(str(tmp_path / "registry"))
    entry = registry.add(models[0])
    config = configured(tiny, tmp_path, registry, f"registry:{entry.id}")
    path = Path(registry.model_path(entry.id)) / "onnx" / "model.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RegistryError, match=r"is damaged: it has another checksum; .*--rollback"):
        resolve(config)
    path.unlink()
    with pytest.raises(RegistryError, match="lacks"):
        resolve(config)


def test_a_model_of_an_object_store_is_fetched_once_and_again_when_damaged(
    tiny: Tiny, tmp_path: Path, models: list[Path]
) -> None:
    MemoryFileSystem.objects.clear()
    registry = Registry("mem://bucket/registry")
    entry = registry.add(models[0])
    config = configured(tiny, tmp_path, registry, f"registry:{entry.id}")
    resolved = resolve(config)
    folder = Path(resolved.scoring.model)
    assert folder.is_relative_to(tmp_path / "cache")
    weights = folder / "onnx" / "model.onnx"
    key = f"{registry.model_path(entry.id)}/onnx/model.onnx"
    stored = MemoryFileSystem.objects[key]
    MemoryFileSystem.objects[key] = b"damaged in the store"
    assert resolve(config) == resolved, "it is here already"
    weights.write_bytes(b"damaged here")
    with pytest.raises(RegistryError, match="another checksum; add the model again"):
        resolve(config)
    MemoryFileSystem.objects[key] = stored
    assert resolve(config) == resolved
    assert weights.read_bytes() == stored
    assert [path.name for path in folder.parent.iterdir()] == [entry.id]


def test_a_worker_elsewhere_fetches_the_model_for_itself(
    tiny: Tiny, tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    MemoryFileSystem.objects.clear()
    registry = Registry("mem://bucket/registry")
    entry = registry.add(models[0])
    config = resolve(configured(tiny, tmp_path, registry, f"registry:{entry.id}"))
    assert fetched_id(config) == entry.id
    load = scorer_loader(config, beam_options(()))
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "worker"))
    assert load().fingerprint == load_scorer(models[0], max_length=32).fingerprint
    assert (tmp_path / "worker" / "nightrank" / "models").is_dir()


@pytest.mark.parametrize("name", ["../../planted", "model/../../planted", "{tmp_path}/planted"])
def test_a_file_outside_of_its_folder_is_refused(
    registry: Registry, models: list[Path], tmp_path: Path, name: str
) -> None:
    entry = registry.add(models[0])
    path, name = (
        filesystem.join(registry.path, "models", entry.id, "entry.json"),
        name.format(tmp_path=tmp_path),
    )
    raw = json.loads(filesystem.read_bytes(path))
    raw["files"][name] = {"bytes": 1, "sha256": "0"}
    filesystem.write_bytes(path, json.dumps(raw).encode())
    source = filesystem.join(registry.model_path(entry.id), name)
    if source.startswith("mem:"):  # a bucket has keys with any parts
        MemoryFileSystem.objects[source] = b"x"
    with pytest.raises(RegistryError, match="outside of its folder"):
        local_model(registry, registry.entry(entry.id))
    assert not [*tmp_path.rglob("planted")]


def test_nights_begin_with_the_model_that_ships_and_take_over_the_promoted_one(
    tiny: Tiny, tmp_path: Path, registry: Registry, models: list[Path]
) -> None:
    output = tmp_path / "output"
    config = configured(tiny, output, registry, "registry:serving", reuse={"enabled": False})
    first = run(config, run_date=DAY)
    assert first.model is None
    assert "no model of the registry" in str(first.degraded["model"])
    entry = registry.add(models[0])
    registry.promote(entry.id, reason="by hand", forced=True)
    second = run(config, run_date=DAY)
    assert second.model
    assert second.model["id"] == entry.id
    assert "model" not in second.degraded
    assert second.model_fingerprint != first.model_fingerprint
    # By another way to the same model it is the same night: the same id, the same rows.
    direct = make_config(
        tiny, output, scoring={"model": str(models[0]), "max_length": 32}, reuse={"enabled": False}
    )
    before = rows(output, second)
    third = run(direct, run_date=DAY)
    assert third.run_id == second.run_id
    assert rows(output, third) == before


def test_scores_are_reused_by_another_way_to_the_same_model(
    tiny: Tiny, tmp_path: Path, models: list[Path]
) -> None:
    registry = Registry(str(tmp_path / "registry"))
    entry = registry.add(models[0])
    registry.promote(entry.id, reason="by hand")
    output = tmp_path / "output"
    run(make_config(tiny, output, scoring={"model": str(models[0]), "max_length": 32}), run_date=DAY)
    second = run(configured(tiny, output, registry, "registry:serving"), run_date=DAY)
    assert second.balance.pairs["published"] == 0
    assert second.balance.pairs["reused"] > 0
