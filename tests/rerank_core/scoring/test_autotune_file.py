"""The file of autotune: what was measured is found again, and told when it is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rerank_core.errors import ModelError
from rerank_core.scoring import autotune
from rerank_core.scoring.autotune import Choice, Measured, Tuning, find, keep, model_key

MakeModel = Callable[..., Path]


def tuning(machine: str = "here", model: str = "m", max_length: int = 64, speed: float = 1.0) -> Tuning:
    rows = (
        Measured(Choice("onnx", onnx_file="onnx/model.onnx"), speed, 1.0, 1.0, ""),
        Measured(Choice("torch", "fp16", device="cuda"), 0.0, 0.0, 0.0, "no “CUDA”"),
    )
    return Tuning(machine, model, max_length, "onnx onnx/model.onnx", 10, rows)


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tuning.json"
    assert find(path, machine="here", model="m", max_length=64) is None
    kept = [tuning(), tuning("there"), tuning(model="other"), tuning(max_length=128)]
    for one in kept:
        keep(path, one)
    keep(path, tuning(speed=2.0))  # in place of the first
    for one in (*kept[1:], tuning(speed=2.0)):
        assert find(path, machine=one.machine, model=one.model, max_length=one.max_length) == one
    assert len(json.loads(path.read_text())["tunings"]) == 4
    assert find(path, machine="nowhere", model="m", max_length=64) is None
    assert [file.name for file in path.parent.iterdir()] == ["tuning.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 1}', '{"version": 1, "tunings": [{}]}', "\udcff"]
)
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuning.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for use in (lambda: find(path, machine="here", model="m", max_length=64), lambda: keep(path, tuning())):
        with pytest.raises(ModelError, match=r"tuning.json is no file of nightrank autotune .*remove it"):
            use()


def test_a_file_of_another_version_is_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    keep(path, tuning())
    path.write_text(path.read_text().replace('"version": 1', '"version": 0'))
    assert find(path, machine="here", model="m", max_length=64) is None
    keep(path, tuning())
    assert find(path, machine="here", model="m", max_length=64) == tuning()


def test_the_default_place_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert autotune.default_path() == tmp_path / "nightrank" / "tuning.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert autotune.default_path() == tmp_path / ".cache" / "nightrank" / "tuning.json"


@pytest.mark.parametrize("external", ["", "model.onnx_data"])
def test_the_key_is_of_the_weights_and_not_of_what_autotune_adds(
    make_model: MakeModel, external: str
) -> None:
    folder = make_model(external=external)
    key = model_key(folder)
    (folder / "openvino").mkdir()
    (folder / "openvino" / "openvino_model_qint8_quantized.xml").write_text("made of the same")
    assert model_key(folder) == key
    weights = folder / "onnx" / (external or "model.onnx")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    assert model_key(folder) != key
    assert len(key) == 32
