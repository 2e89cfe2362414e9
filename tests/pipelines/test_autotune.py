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
from rerank_core.errors import ConfigError, ModelError, SourceError
from rerank_core.inference.batching import Pair
from rerank_core.inference.model_folder import OPENVINO_INT8
from rerank_core.scoring import autotune
from rerank_core.scoring.tuning import Choice, Tuning
from rerank_core.text import query_id
from tests.conftest import MakeConfig
from tests.support.tiny import DAY, QUERIES, TIME, Tiny, event, published_bytes, write_lines

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
    writer = pytest.importorskip("rerank_core.scoring.backends.openvino_int8", exc_type=ImportError)

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
    pipelines_autotune.ensure_int8(folder, GROUPS, max_length=64)


def test_a_model_that_is_not_there_is_told(tmp_path: Path, only: Callable[..., None], model: Path) -> None:
    with pytest.raises(ModelError, match=f"no model folder at {tmp_path}/nosuch"):
        pipelines_autotune.measure(Scoring(model=str(tmp_path / "nosuch")), GROUPS)
    only()
    with pytest.raises(
        ModelError, match=r"no engine is installed that runs the model in .*bert: .*nightrank\[cpu\]"
    ):
        pipelines_autotune.measure(Scoring(model=str(model)), GROUPS)


# --- backend = "auto"


@pytest.fixture
def resolve(make_config: MakeConfig, model: Path, tmp_path: Path) -> Callable[..., Config]:
    """`resolve(local=True, **scoring's)` a tiny night's backend."""

    def resolved(*, local: bool = True, **scoring: Any) -> Config:
        auto = {"backend": "auto", "model": str(model), "tuning": str(tmp_path / "tuning.json")}
        config = make_config(scoring=auto | {"max_length": 64} | scoring)
        return pipelines_autotune.resolve(config, local=local)

    return resolved


@pytest.fixture
def stored(make_config: MakeConfig, model: Path, only: Callable[..., None], tmp_path: Path) -> Tuning:
    """ONNX Runtime alone, measured and stored in the file that `resolve` reads."""
    only("onnxruntime")
    scoring = Scoring(model=str(model), max_length=64, tuning=str(tmp_path / "tuning.json"))
    tuning = pipelines_autotune.measure(scoring, GROUPS)
    pipelines_autotune.store(scoring, tuning)
    return tuning


def test_auto_is_the_stored_result(resolve: Callable[..., Config], stored: Tuning) -> None:
    scoring = resolve().scoring
    assert (scoring.backend, scoring.onnx_file) == ("onnx", "onnx/model.onnx")
    assert {name: getattr(scoring, name) for name in Choice._fields} == stored.best._asdict()


def test_auto_stops_without_a_result_for_this_machine_model_and_length(
    resolve: Callable[..., Config],
    stored: Tuning,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = r"no measurement of .* on this machine at scoring.max_length = {}; .*: nightrank autotune --config FILE"
    with pytest.raises(ConfigError, match=nothing.format(32)):
        resolve(max_length=32)
    with pytest.raises(ConfigError, match=nothing.format(64)):
        resolve(tuning=str(tmp_path / "other.json"))
    with monkeypatch.context() as patch:
        patch.setattr(pipelines_autotune, "machine_name", lambda: "another")
        with pytest.raises(ConfigError, match=nothing.format(64)):
            resolve()
    shutil.copy(model / "tokenizer.json", model / "other.json")  # no part of the model
    assert resolve().scoring.backend == "onnx"
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    with pytest.raises(ConfigError, match=nothing.format(64)):
        resolve()


def test_a_backend_that_is_named_is_left_alone(make_config: MakeConfig) -> None:
    config = make_config(scoring={"backend": "openvino"})
    assert pipelines_autotune.resolve(config, local=False) is config


def test_auto_is_not_for_workers_elsewhere(resolve: Callable[..., Config], stored: Tuning) -> None:
    with pytest.raises(
        ConfigError, match=r"workers are elsewhere: run nightrank autotune on a machine of their kind"
    ):
        resolve(local=False)


@pytest.mark.parametrize(
    "option",
    [
        {"compile": True},
        {"allow_fallback": True},
        {"trust_remote_code": True},
        {"precision": "fp16"},
        {"onnx_file": "x.onnx"},
        {"device": "cuda"},
        {"instruction": "find it"},
    ],
)
def test_auto_refuses_what_only_some_engines_have(
    resolve: Callable[..., Config], option: dict[str, Any]
) -> None:
    with pytest.raises(
        ConfigError, match=rf"scoring.{next(iter(option))} = .* no meaning for the backend 'auto'"
    ):
        resolve(**option)


def test_a_file_that_cannot_be_written_is_named(stored: Tuning) -> None:
    with pytest.raises(ModelError, match=r"cannot write /proc/.*; set scoring.tuning to a file"):
        pipelines_autotune.store(Scoring(tuning="/proc/nosuch/tuning.json"), stored)


def test_a_night_by_auto_is_the_night_by_the_backend_it_names(
    make_config: MakeConfig, measured: tuple[Path, Tuning], tmp_path: Path
) -> None:
    folder, found = measured
    scoring = {"model": str(folder), "max_length": 64, "tuning": str(tmp_path / "tuning.json")}
    auto = make_config(scoring=scoring | {"backend": "auto"}, output={"path": str(tmp_path / "auto")})
    pipelines_autotune.store(auto.scoring, found)
    first = run(auto, run_date=DAY)
    named = {name: first.config["scoring"][name] for name in Choice._fields}
    assert named == found.best._asdict()
    assert first.balance.pairs["published"] == first.balance.pairs["read"] > 0
    second = run(make_config(scoring=scoring | named), run_date=DAY)
    assert (second.run_id, second.model_fingerprint) == (first.run_id, first.model_fingerprint)
    assert published_bytes(tmp_path / "output", second) == published_bytes(tmp_path / "auto", first)


# --- the pairs


def sampled(config: Config) -> list[list[Pair]]:
    return pipelines_autotune.sample(config, LocalSource(config), run_date=DAY)


def test_a_sample_is_the_same_pairs_again(make_config: MakeConfig) -> None:
    groups = sampled(make_config())
    assert groups == sampled(make_config())
    assert {query for group in groups for query, _ in group} == set(QUERIES)
    for group in groups:
        assert len({query for query, _ in group}) == 1
        assert len(set(group)) == len(group)
    dune = next(group for group in groups if group[0][0] == "Who wrote Dune")
    assert ("Who wrote Dune", "Dune is a novel by Frank Herbert. It was published in 1965.") in dune


def test_a_sample_is_small_and_holds_the_lowest_ids(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"dune {n}" for n in range(20)]
    log = write_lines(tmp_path / "log.jsonl", [event(text) for text in texts])
    config = make_config(source={"log": str(log)})
    monkeypatch.setattr(pipelines_autotune, "PAIRS_A_QUERY", 2)
    groups = sampled(config)
    lowest = sorted(texts, key=query_id)[: pipelines_autotune.QUERIES]
    assert [group[0][0] for group in groups] == lowest
    assert {len(group) for group in groups} == {2}
    write_lines(log, [event(text) for text in texts[::-1] * 2])  # their order and number do not matter
    assert sampled(config) == groups


def test_a_query_without_candidates_is_left_out(make_config: MakeConfig, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [event("qqqq zzzz"), event("tacoma")])
    groups = sampled(make_config(source={"log": str(log)}))
    assert [group[0][0] for group in groups] == ["tacoma"]
    write_lines(log, [event("qqqq zzzz")])
    with pytest.raises(SourceError, match=r"no query with candidates.*nightrank autotune --pairs"):
        sampled(make_config(source={"log": str(log)}))


def test_a_sample_is_of_the_window(make_config: MakeConfig, tmp_path: Path) -> None:
    events = [event("tacoma", at=TIME), event("seattle", at="2020-01-01T00:00:00Z")]
    log = write_lines(tmp_path / "log.jsonl", events)
    groups = sampled(make_config(source={"log": str(log)}, candidates={"unit": "sentence"}))
    assert [group[0][0] for group in groups] == ["tacoma"]
    assert ("tacoma", "Tacoma is a city in Washington.") in groups[0]


def test_pairs_of_a_file_are_grouped_by_query(tmp_path: Path) -> None:
    rows = [("a", "1"), ("b", "2"), ("a", "3")]
    path = write_lines(tmp_path / "pairs.jsonl", [{"query": q, "passage": p, "more": 0} for q, p in rows])
    assert pipelines_autotune.read_pairs(path) == [[("a", "1"), ("a", "3")], [("b", "2")]]


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "",
        "[]",
        '"text"',
        '{"query": "a"}',
        '{"query": ["a"], "passage": "b"}',
        '{"query": "a", "passage": null}',
        '{"query": 1, "passage": "b"}',
    ],
)
def test_a_bad_line_of_a_file_is_named(tmp_path: Path, line: str) -> None:
    path = write_lines(tmp_path / "pairs.jsonl", [{"query": "a", "passage": "b"}, line])
    with pytest.raises(SourceError, match=r'pairs.jsonl, line 2: not a \{"query": ..., "passage": ...\}'):
        pipelines_autotune.read_pairs(path)


def test_a_file_without_pairs_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(SourceError, match="cannot read"):
        pipelines_autotune.read_pairs(path)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="holds no pair"):
        pipelines_autotune.read_pairs(path)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(SourceError, match="cannot read"):
        pipelines_autotune.read_pairs(path)
