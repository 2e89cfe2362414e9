"""What a --system names, and how it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.evaluate import systems
from pipelines.evaluate.systems import System, load_bi_encoder, load_cross_encoder, load_system, parse
from rerank_core.errors import ConfigError, JudgementError, MissingEngine, ModelError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pytest.importorskip("onnx")
    from tests.support.tiny_onnx import write_model

    return write_model(tmp_path / "small")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("bm25", System("bm25", "bm25")),
        ("default", System("default", "model", "", "onnx")),
        ("ours=default", System("ours", "model", "", "onnx")),
        ("openvino:default", System("openvino:default", "model", "", "openvino")),
        ("bi:some/folder", System("bi:folder", "model", "some/folder", "bi_encoder")),
        ("openvino:owner/name", System("openvino:name", "model", "owner/name", "openvino")),
        ("mine=torch:C=D/m", System("mine", "model", "C=D/m", "torch")),
        ("./a=b/model", System("model", "model", "./a=b/model", "torch")),  # no label: it has a slash
        ("old=run:runs/bm25.trec", System("old", "run", "runs/bm25.trec")),
        ("owner/name", System("name", "model", "owner/name", "torch")),  # no folder here, so no ONNX file
        ("http:model", System("http:model", "model", "http:model", "torch")),
    ],
)
def test_a_name_is_read(spec: str, expected: System) -> None:
    assert parse([spec]) == [expected]


def test_a_folder_with_an_onnx_file_runs_on_onnx(model: Path) -> None:
    assert parse([str(model)]) == [System("small", "model", str(model), "onnx")]


def test_names_are_distinct_and_not_empty() -> None:
    with pytest.raises(
        ConfigError, match="two systems are called 'model'; give them labels, as in mine=a/model"
    ):
        parse(["a/model", "b/model"])
    assert [system.name for system in parse(["one=a/model", "b/model"])] == ["one", "model"]
    with pytest.raises(ConfigError, match="--system 'run:' has no name"):
        parse(["run:"])


def test_a_model_says_whether_it_reads_tags(model: Path) -> None:
    (system,) = parse([str(model)])
    assert load_system(system, tags=["auto"], max_length=32).tag_modes == ("none",)
    (model / "nightrank.json").write_text(json.dumps({"reads_tags": True}))
    loaded = load_system(system, tags=["auto"], max_length=32)
    assert loaded.tag_modes == ("true", "none", "shuffled", "forged")
    assert loaded.gives_logits
    assert load_system(system, tags=["forged", "auto"], max_length=32).tag_modes[:2] == ("forged", "true")
    assert load_system(system, tags=["none"], max_length=32).tag_modes == ("none",)


def test_bm25_and_runs_read_no_tags(tmp_path: Path) -> None:
    (tmp_path / "a.run").write_text("q1 Q0 d1 1 2.0 tag\n")
    bm25, run = parse(["bm25", f"run:{tmp_path / 'a.run'}"])
    for system in (bm25, run):
        loaded = load_system(system, tags=["true", "forged"], max_length=32)
        assert (loaded.tag_modes, loaded.scorer, loaded.gives_logits) == (("none",), None, False)
    assert load_system(run, tags=["auto"], max_length=32).run == {"q1": {"d1": 2.0}}


def test_what_cannot_be_loaded_is_named(model: Path, tmp_path: Path) -> None:
    (system,) = parse([f"mine={model}"])
    with pytest.raises(ConfigError, match="no --tags 'fake'; choose from auto, true, none, shuffled, forged"):
        load_system(system, tags=["fake"], max_length=32)
    with pytest.raises(ModelError, match=r"mine: no model folder at .*nosuch"):
        load_system(
            System("mine", "model", str(tmp_path / "no such" / "nosuch"), "onnx"),
            tags=["auto"],
            max_length=32,
        )
    with pytest.raises(JudgementError, match="cannot read"):
        load_system(System("run", "run", str(tmp_path / "nosuch")), tags=["auto"], max_length=32)


def test_a_mistyped_folder_is_named_before_the_missing_engine(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: object, **__: object) -> None:
        raise MissingEngine("it needs torch")

    monkeypatch.setattr(systems, "load_scorer", without)
    (slip,) = parse(["nowhere"])
    message = "nowhere: no such folder, so it is taken for a name on the Hub; it needs torch"
    for load in (
        lambda: load_system(slip, tags=["auto"], max_length=32),
        lambda: load_bi_encoder("nowhere", max_length=32),
    ):
        with pytest.raises(MissingEngine, match=message):
            load()
    with pytest.raises(MissingEngine, match=f"{model}: it needs torch"):
        load_bi_encoder(str(model), max_length=32)


def test_a_cross_encoder_to_fit_on_comes_without_its_fusion_weights(model: Path, tmp_path: Path) -> None:
    (model / "fusion.json").write_text(json.dumps({"weights": {"bm25": 1.0}, "bias": 0.0}))
    (system,) = parse([str(model)])
    assert load_system(system, tags=["auto"], max_length=32).fusion is not None
    loaded = load_cross_encoder(str(model), max_length=32)
    assert (loaded.fusion, loaded.system.path, loaded.gives_logits) == (None, str(model), True)
    for name in ("bm25", "bi:nowhere", f"run:{tmp_path}"):
        with pytest.raises(ConfigError, match="gives no logits to fit on; name a cross-encoder"):
            load_cross_encoder(name, max_length=32)
