"""The measurement, and `scoring.backend = "auto"`, with real models and a real index."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import autotune as pipelines_autotune
from pipelines.nightly.run import run
from pipelines.sources.local.source import LocalSource
from rerank_core.config.night import Config, Scoring
from rerank_core.errors import ConfigError, MissingEngine, ModelError
from rerank_core.inference.model_folder import OPENVINO_INT8
from rerank_core.scoring import autotune
from rerank_core.scoring.autotune import Choice, Tuning
from rerank_core.scoring.protocol import Scorer
from tests.conftest import MakeConfig
from tests.support.tiny import DAY, Tiny, published_bytes

GROUPS = [
    [("who wrote dune", "Dune is a novel."), ("who wrote dune", "Sand moves.")],
    [("rain", "It falls.")],
]


# --- the measurement


@pytest.fixture(scope="module")
def measured(transformer: Path, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuning]:
    """A model measured on all engines that are installed, and its folder with what was added. Read only."""
    from tests.support.tiny import make_config

    folder = tmp_path_factory.mktemp("measured")
    shutil.copytree(transformer, folder / "bert")
    config = make_config(tiny, folder / "output")
    scoring = dataclasses.replace(config.scoring, model=str(folder / "bert"), max_length=64)
    groups = pipelines_autotune.sample(config, LocalSource(config), run_date=DAY)
    return folder / "bert", pipelines_autotune.measure(scoring, groups)


def test_every_installed_engine_is_really_run(measured: tuple[Path, Tuning]) -> None:
    folder, found = measured
    rows = {m.choice: m for m in found.measured}
    expected = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
    ran = {choice.backend for choice, row in rows.items() if row.pairs_per_second > 0}
    assert ran == {backend for backend, module in expected.items() if importlib.util.find_spec(module)}
    assert (found.reference, found.max_length) == ("onnx onnx/model.onnx", 64)
    assert found.pairs > 20
    for choice, row in rows.items():
        assert choice.precision not in ("", "fp32") or (row.agreement > 0.999 and not row.dropped), row
    assert not rows[found.best].dropped
    if "openvino" in ran and importlib.util.find_spec("nncf"):
        assert (folder / OPENVINO_INT8).is_file()
        assert rows[Choice("openvino", "int8")].pairs_per_second > 0


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`only("onnxruntime")`: the engines that count as installed."""
    return lambda *modules: monkeypatch.setattr(autotune, "_installed", lambda module: module in modules)


def test_a_folder_that_cannot_be_written_to_leaves_int8_out(
    model: Path, only: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = pytest.importorskip("rerank_core.scoring.backends.openvino_int8", exc_type=MissingEngine)

    def refused(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(writer, "quantise", refused)
    only("onnxruntime", "openvino")
    found = pipelines_autotune.measure(Scoring(model=str(model), max_length=64), GROUPS)
    reason = next(m.dropped for m in found.measured if m.choice == Choice("openvino", "int8"))
    assert reason.startswith(
        f"cannot write {model / OPENVINO_INT8} ([Errno 13] Permission denied): copy the model"
    )
    assert found.best != Choice("openvino", "int8")


def test_int8_is_made_once(measured: tuple[Path, Tuning], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = measured
    if not (folder / OPENVINO_INT8).is_file():
        pytest.skip("needs openvino and nncf to make int8: pip install 'nightrank[openvino]'")
    monkeypatch.setattr("rerank_core.scoring.backends.openvino_int8.quantise", None)  # calling it would fail
    pipelines_autotune.quantise(folder, GROUPS, max_length=64)


def test_a_model_that_is_not_there_is_told(tmp_path: Path, only: Callable[..., None], model: Path) -> None:
    with pytest.raises(ModelError, match=f"no model folder at {tmp_path}/nosuch"):
        pipelines_autotune.measure(Scoring(model=str(tmp_path / "nosuch")), GROUPS)
    only()
    with pytest.raises(
        ModelError, match=r"nothing that is installed runs the model in .*bert: .*nightrank\[cpu\]"
    ):
        pipelines_autotune.measure(Scoring(model=str(model)), GROUPS)


# --- backend = "auto"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]) -> list[str]:
    """The backends that were loaded to be measured; ONNX Runtime alone is installed."""
    only("onnxruntime")
    made: list[str] = []
    real = pipelines_autotune.load_scorer

    def load(*arguments: Any, **options: Any) -> Scorer:
        made.append(options["backend"])
        return real(*arguments, **options)

    monkeypatch.setattr(pipelines_autotune, "load_scorer", load)
    return made


@pytest.fixture
def resolve(make_config: MakeConfig, model: Path, tmp_path: Path) -> Callable[..., Config]:
    """`resolve(local=True, **scoring's)` a tiny night's backend."""

    def resolved(*, local: bool = True, **scoring: Any) -> Config:
        held = {
            "backend": "auto",
            "model": str(model),
            "max_length": 64,
            "tuning": str(tmp_path / "tuning.json"),
        }
        config = make_config(scoring=held | scoring)
        return pipelines_autotune.resolve(config, LocalSource(config), run_date=DAY, local=local)

    return resolved


def test_auto_is_measured_once(resolve: Callable[..., Config], loads: list[str], tmp_path: Path) -> None:
    first = resolve()
    assert (first.scoring.backend, first.scoring.onnx_file) == ("onnx", "onnx/model.onnx")
    assert loads == ["onnx"]
    assert (tmp_path / "tuning.json").is_file()
    assert resolve() == first
    assert loads == ["onnx"]


def test_auto_is_measured_again_for_another_length_machine_or_model(
    resolve: Callable[..., Config], loads: list[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve()
    resolve(max_length=32)
    assert len(loads) == 2
    with monkeypatch.context() as patch:
        for module in (pipelines_autotune, autotune):
            patch.setattr(module, "machine_name", lambda: "another")
        resolve()
        assert len(loads) == 3
        resolve()
    resolve()
    resolve(max_length=32)
    assert len(loads) == 3  # nothing that was kept is lost
    shutil.copy(model / "tokenizer.json", model / "other.json")  # no part of the model
    resolve()
    assert len(loads) == 3
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    resolve()
    assert len(loads) == 4


def test_a_backend_that_is_named_is_left_alone(make_config: MakeConfig, loads: list[str]) -> None:
    config = make_config(scoring={"backend": "openvino"})
    assert pipelines_autotune.resolve(config, LocalSource(config), run_date=DAY, local=False) is config
    assert not loads


def test_auto_measures_no_workers_that_are_elsewhere(
    resolve: Callable[..., Config], loads: list[str]
) -> None:
    with pytest.raises(
        ConfigError, match=r"workers are elsewhere: run nightrank autotune on a machine of their kind"
    ):
        resolve(local=False)
    assert not loads


@pytest.mark.parametrize(
    "option",
    [{"compile": True}, {"allow_fallback": True}, {"trust_remote_code": True}, {"precision": "fp16"},
     {"onnx_file": "x.onnx"}, {"device": "cuda"}, {"instruction": "find it"}],
)  # fmt: skip
def test_auto_refuses_what_only_some_engines_have(
    resolve: Callable[..., Config], loads: list[str], option: dict[str, Any]
) -> None:
    with pytest.raises(
        ConfigError, match=rf"scoring.{next(iter(option))} = .* no meaning for the backend 'auto'"
    ):
        resolve(**option)
    assert not loads


def test_where_nothing_can_be_kept_auto_says_so(resolve: Callable[..., Config], loads: list[str]) -> None:
    with pytest.raises(
        ModelError, match=r"cannot keep what was measured in /proc/.*; set scoring.tuning to a file"
    ):
        resolve(tuning="/proc/nosuch/tuning.json")


def test_a_night_by_auto_is_the_night_by_the_backend_it_names(
    make_config: MakeConfig, measured: tuple[Path, Tuning], tmp_path: Path
) -> None:
    folder, found = measured
    scoring = {"model": str(folder), "max_length": 64, "tuning": str(tmp_path / "tuning.json")}
    auto = make_config(scoring=scoring | {"backend": "auto"}, output={"path": str(tmp_path / "auto")})
    pipelines_autotune.keep(auto.scoring, found)
    first = run(auto, run_date=DAY)
    named = {name: first.config["scoring"][name] for name in Choice._fields}
    assert named == found.best._asdict()
    assert first.balance.pairs["published"] == first.balance.pairs["read"] > 0
    second = run(make_config(scoring=scoring | named), run_date=DAY)
    assert (second.run_id, second.model_fingerprint) == (first.run_id, first.model_fingerprint)
    assert published_bytes(tmp_path / "output", second) == published_bytes(tmp_path / "auto", first)
