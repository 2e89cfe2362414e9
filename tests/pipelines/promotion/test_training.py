"""The training of a night: real trainings of a tiny BERT, killed, resumed, and added to the registry once."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
pytest.importorskip("sentence_transformers")

from pipelines.promotion import training
from pipelines.promotion.steps import open_registry, train_candidate
from pipelines.registry.lineage import FILE
from pipelines.registry.store import Registry
from pipelines.train.run import LAST, WORK
from rerank_core.config.night import Config
from rerank_core.errors import ConfigError
from rerank_core.inference.model_folder import find_onnx
from rerank_core.ranking import fusion
from rerank_core.ranking.fusion import Fusion
from rerank_core.training.package import write_package
from tests.conftest import Night
from tests.support.killed import Killed, killed
from tests.support.tiny import DAY, Tiny, make_config
from tests.support.tiny_models import write_bi_encoder, write_cross_encoder
from tests.support.tiny_onnx import write_model

LATER = DAY + datetime.timedelta(days=7)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("base") / "bert", initializer_range=0.05)


@pytest.fixture
def config(night: Night, tiny: Tiny, base: Path, tmp_path: Path) -> Config:
    """A night that trains on its own output."""
    toml = tmp_path / "train.toml"
    toml.write_text(
        f'model = "{base}"\noutput = "model"\nmax_length = 48\nlog_steps = 1\ncheckpoint_steps = 1\n[[stages]]\n'
        f'name = "one"\nruns = ["{night.output}"]\nepochs = 1\n[stages.tags]\npolicy = "keep"\n'
    )
    return make_config(
        tiny,
        night.output,
        plan={"train": str(toml)},
        registry={"path": str(tmp_path / "registry")},
        scoring={"max_length": 48},
    )


def candidate(tmp_path: Path) -> Path:
    return tmp_path / "model.candidate"


def killed_in(monkeypatch: pytest.MonkeyPatch, config: Config, name: str, dies: Any) -> None:
    """Start the step with a function of it in place of which the process dies."""
    with monkeypatch.context() as patch:
        patch.setattr(training, name, dies)
        with pytest.raises(Killed):
            train_candidate(config, run_date=DAY)


def die(*args: Any, **options: Any) -> None:
    raise Killed


def test_a_night_trains_a_candidate_with_its_lineage_once(
    config: Config, night: Night, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()  # a model that was trained by hand is left alone
    (tmp_path / "model" / "config.json").write_text("{}")
    result = train_candidate(config, run_date=DAY)
    registry = open_registry(config)
    (entry,) = registry.entries()
    assert (result["model"], result["state"], entry.lineage.run_date) == (
        entry.id,
        "candidate",
        DAY.isoformat(),
    )
    assert [(run.output, run.run_id) for run in entry.lineage.runs] == [
        (night.output.name, night.manifest.run_id)
    ]
    assert registry.lineage_runs().keys() == {night.manifest.run_id}
    assert entry.lineage.parent
    assert entry.lineage.parent.name == "bert"
    assert [line["stage"] for line in entry.lineage.figures] == ["one"]
    assert entry.lineage.training
    assert str(tmp_path) not in repr(entry.lineage)
    assert not candidate(tmp_path).exists()
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]
    assert "no calibration or fusion weights were fitted" in result["notes"][0]

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("it was trained already")

    monkeypatch.setattr(training, "train", never)
    assert train_candidate(config, run_date=DAY) == result | {"notes": []}
    # by hand, the same folder brings the same lineage
    folder = Path(registry.model_path(entry.id))
    other = Registry(str(tmp_path / "other"))
    assert other.add(folder).lineage == dataclasses.replace(entry.lineage, run_date="")


def test_killed_anywhere_a_training_is_resumed_and_added_once(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, registry = training.train, open_registry(config)

    def dies(line: dict[str, Any]) -> None:
        if (line["kind"], line["step"]) == ("loss", 2):
            raise Killed

    killed_in(monkeypatch, config, "train", lambda *args, **options: real(*args, on_line=dies, **options))
    assert (candidate(tmp_path) / WORK / "settings.json").exists()
    assert registry.entries() == []
    before = [path.name for path in candidate(tmp_path).rglob("checkpoint-*")]

    killed_in(monkeypatch, config, "_fit", die)
    assert (candidate(tmp_path) / LAST).exists()
    steps = (candidate(tmp_path) / "figures.jsonl").read_text().count('"loss"')
    assert (registry.entries(), before) == ([], before)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", lambda *args, **options: pytest.fail("it was finished"))
        whole = tmp_path / "whole"
        shutil.copytree(candidate(tmp_path), whole)
        for step in itertools.count():
            with killed(tmp_path / "registry", at=step):
                result = train_candidate(config, run_date=DAY)
                break
            assert len(registry.entries()) <= 1
        (entry,) = registry.entries()
        assert result["model"] == entry.id
        assert len(list(entry.lineage.figures)) == 1
        assert steps
        # killed between the addition and the removal of its folder
        shutil.copytree(whole, candidate(tmp_path))
        assert train_candidate(config, run_date=DAY)["model"] == entry.id
    assert not candidate(tmp_path).exists()
    assert [e.id for e in registry.entries()] == [entry.id]


def test_what_an_earlier_configuration_left_is_not_taken_for_this_one(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, toml = training.train, Path(config.plan.train)

    killed_in(monkeypatch, config, "train", lambda *args, **options: real(*args, on_line=die, **options))
    toml.write_text(toml.read_text().replace("log_steps = 1", "log_steps = 2"))
    killed_in(monkeypatch, config, "_fit", die)  # anew, and killed when it is finished
    toml.write_text(toml.read_text().replace("log_steps = 2", "log_steps = 3"))
    result = train_candidate(config, run_date=LATER)
    entries = {entry.lineage.run_date: entry for entry in open_registry(config).entries()}
    assert entries.keys() == {"", LATER.isoformat()}, "the finished one is not lost"
    assert result["model"] == entries[LATER.isoformat()].id
    assert entries[""].lineage.training
    assert entries[""].lineage.training["log_steps"] == 2
    assert not candidate(tmp_path).exists()


def test_a_training_may_start_from_the_serving_model(config: Config, base: Path, tmp_path: Path) -> None:
    toml, registry = Path(config.plan.train), open_registry(config)
    text = toml.read_text()
    registry.promote(registry.add(write_model(tmp_path / "exported")).id, reason="by hand", forced=True)
    toml.write_text(text.replace(f'"{base}"', '"registry:serving"'))
    with pytest.raises(ConfigError, match="no safetensors to train from"):
        train_candidate(config, run_date=DAY)
    toml.write_text(text)
    first = train_candidate(config, run_date=DAY)
    registry.promote(first["model"], reason="by hand", forced=True)
    toml.write_text(text.replace(f'"{base}"', '"registry:serving"'))
    second = train_candidate(config, run_date=LATER)
    parent = registry.entry(second["model"]).lineage.parent
    assert parent
    assert (parent.model, parent.fingerprint) == (first["model"], registry.entry(first["model"]).fingerprint)
    registry.promote(second["model"], reason="by hand", forced=True)
    assert train_candidate(config, run_date=LATER)["model"] == second["model"], "it is done for this date"


def test_a_training_may_start_from_a_serving_bi_encoder_in_int8(
    config: Config, base: Path, tmp_path: Path
) -> None:
    toml, registry, folder = Path(config.plan.train), open_registry(config), tmp_path / "small"
    full = write_bi_encoder(tmp_path / "full", initializer_range=0.05)
    write_package(full, folder, pairs=[("who", "sand moves")], reads_tags=False, max_length=48)
    for name in ("model.safetensors", "onnx/model.onnx"):
        (folder / name).unlink()
    weights = Fusion((2.0, *[0.0] * (len(fusion.FEATURES) - 1)), -0.25)
    fusion.write(folder / fusion.FILE, weights, figures={})
    served = registry.add(folder)
    registry.promote(served.id, reason="by hand", forced=True)
    toml.write_text(toml.read_text().replace(f'"{base}"', '"registry:serving"'))
    result = train_candidate(config, run_date=DAY)
    parent = registry.entry(result["model"]).lineage.parent
    assert parent
    assert parent.model == served.id
    trained = Path(registry.model_path(result["model"]))
    assert fusion.read(trained / fusion.FILE) == weights
    assert find_onnx(trained).name == "model_int8.onnx"
    assert "logit" in (Path(registry.model_path(result["model"])) / "nightrank.json").read_text()


def test_a_trained_folder_says_what_it_was_trained_on(config: Config, tmp_path: Path) -> None:
    result = train_candidate(config, run_date=DAY)
    folder = Path(open_registry(config).model_path(result["model"]))
    assert (folder / FILE).is_file()
    assert str(tmp_path) not in (folder / FILE).read_text()
