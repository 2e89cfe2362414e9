"""The file of autotune: what was written is read again, and a damaged file is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rerank_core.errors import ModelError
from rerank_core.scoring.tuning import (
    Choice,
    Measurement,
    Tuning,
    default_path,
    model_key,
    read_tuning,
    write_tuning,
)

MakeModel = Callable[..., Path]


def tuning(machine: str = "here", model: str = "m", max_length: int = 64, speed: float = 1.0) -> Tuning:
    rows = (
        Measurement(Choice("onnx", onnx_file="onnx/model.onnx"), speed, 1.0, 1.0, ""),
        Measurement(Choice("torch", "fp16", device="cuda"), 0.0, 0.0, 0.0, "no “CUDA”"),
    )
    return Tuning(machine, model, max_length, "onnx onnx/model.onnx", 10, rows)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tuning.json"
    assert read_tuning(path, machine="here", model="m", max_length=64) is None
    written = [tuning(), tuning("there"), tuning(model="other"), tuning(max_length=128)]
    for result in written:
        write_tuning(path, result)
    write_tuning(path, tuning(speed=2.0))  # in place of the first
    for result in (*written[1:], tuning(speed=2.0)):
        assert (
            read_tuning(path, machine=result.machine, model=result.model, max_length=result.max_length)
            == result
        )
    assert len(json.loads(path.read_text())["tunings"]) == 4
    assert read_tuning(path, machine="nowhere", model="m", max_length=64) is None
    assert [file.name for file in path.parent.iterdir()] == ["tuning.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 1}', '{"version": 1, "tunings": [{}]}', "\udcff"]
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuning.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for use in (
        lambda: read_tuning(path, machine="here", model="m", max_length=64),
        lambda: write_tuning(path, tuning()),
    ):
        with pytest.raises(ModelError, match=r"tuning.json is not a file of nightrank autotune.*remove it"):
            use()


def test_a_file_of_another_version_is_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    write_tuning(path, tuning())
    path.write_text(path.read_text().replace('"version": 1', '"version": 0'))
    assert read_tuning(path, machine="here", model="m", max_length=64) is None
    write_tuning(path, tuning())
    assert read_tuning(path, machine="here", model="m", max_length=64) == tuning()


def test_the_default_file_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "nightrank" / "tuning.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".cache" / "nightrank" / "tuning.json"


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
