"""Nights that do not start, and the id of a run: a hash of what determines its rows, equal on every machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import pipelines
from pipelines.beam_options import beam_options
from pipelines.nightly import models
from pipelines.nightly.prepare import prepare
from pipelines.nightly.run import run
from pipelines.storage import filesystem
from rerank_core.errors import ConfigError, JudgementError, SourceError
from rerank_core.ranking import calibration, fusion
from rerank_core.ranking.calibration import Calibration
from rerank_core.ranking.fusion import Fusion
from tests.conftest import MakeConfig, Night
from tests.support.fakes import fake, forbidden, load_fake
from tests.support.tiny import DAY, GOOD_LOG, write_lines


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "__version__", "1.2.3")


# These two change with the configuration's fields and defaults, the tagger's version and the fingerprints of log and
# index. Where nothing of that was changed, a new id means that every user's nights get other ids.


@pytest.mark.usefixtures("version")
def test_the_run_id_of_a_given_scorer_is_pinned(make_config: MakeConfig) -> None:
    night = prepare(make_config(), run_date=DAY, options=beam_options([]), load=fake())
    assert night.run.run_id == "20260308-b9fb3d6bbdee"


@pytest.mark.usefixtures("version")
def test_the_run_id_of_a_configured_model_is_pinned(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load_scorer", load_fake)
    (tmp_path / "model").mkdir()
    calibration.write(tmp_path / "model", Calibration(0.5, -1.0), figures={"method": "platt"})
    weights = Fusion((1.0, 0.5, *[0.0] * (len(fusion.FEATURES) - 2)), -0.25)
    fusion.write(tmp_path / "model" / fusion.FILE, weights, figures={})
    labels: dict[str, Any] = {
        "source": "qrels",
        "queries": str(write_lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "who wrote dune"}])),
        "qrels": str(write_lines(tmp_path / "qrels.tsv", ["query-id\tcorpus-id\tscore", "q1\tdune\t1"])),
    }
    cascade = {"enabled": True, "model": "first-stage", "max_loss": 0.5, "sample_queries": 2}
    config = make_config(scoring={"model": str(tmp_path / "model")}, labels=labels, cascade=cascade)
    night = prepare(config, run_date=DAY, options=beam_options([]))
    assert night.run.run_id == "20260308-35f3ac33a624"
    fusion.write(tmp_path / "model" / fusion.FILE, dataclasses.replace(weights, top=-0.5), figures={})
    assert prepare(config, run_date=DAY, options=beam_options([])).run.run_id != night.run.run_id


def test_label_files_decide_the_run_id_wherever_they_are(
    make_config: MakeConfig, tmp_path: Path, store: str
) -> None:
    queries = write_lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "who wrote dune"}]).read_bytes()
    qrels = [b"query-id\tcorpus-id\tscore\nq1\tdune\t1\n", b"query-id\tcorpus-id\tscore\nq1\therbert\t1\n"]
    ids = []
    for folder in (str(tmp_path), store):
        for text in qrels:
            filesystem.write_bytes(f"{folder}/queries.jsonl", queries)
            filesystem.write_bytes(f"{folder}/qrels.tsv", text)
            labels = {"source": "qrels", "queries": f"{folder}/queries.jsonl", "qrels": f"{folder}/qrels.tsv"}
            night = prepare(make_config(labels=labels), run_date=DAY, options=beam_options([]), load=fake())
            ids.append(night.run.run_id)
    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("missing", ["qrels.tsv", "{store}/qrels.tsv"])
def test_a_label_file_that_is_not_read_may_be_missing(
    make_config: MakeConfig, tmp_path: Path, store: str, missing: str
) -> None:
    query = {"_id": "q1", "text": "who wrote dune", "answers": ["Frank Herbert"]}
    queries = write_lines(tmp_path / "queries.jsonl", [query])
    labels = {
        "source": "answers",
        "queries": str(queries),
        "qrels": missing.format(store=store) if "{" in missing else str(tmp_path / missing),
    }
    prepare(make_config(labels=labels), run_date=DAY, options=beam_options([]), load=fake())
    prepare(
        make_config(labels=labels | {"source": "clicks"}), run_date=DAY, options=beam_options([]), load=fake()
    )


def test_the_run_id_is_of_what_decides_the_rows(
    night: Night, make_config: MakeConfig, tmp_path: Path
) -> None:
    def run_id(name: str = "fake", **sections: dict[str, Any]) -> str:
        config = make_config(**sections)
        return prepare(config, run_date=DAY, options=beam_options([]), load=fake(name)).run.run_id

    ids = [
        run_id(),
        run_id("other"),
        run_id(tags={"max_hop": 2}),
        run_id(source={"log": str(write_lines(tmp_path / "log.jsonl", GOOD_LOG[:1]))}),
        run_id(output={"path": str(night.output)}),  # where scores are reused
    ]
    assert len(set(ids)) == len(ids)
    assert run_id(output={"path": str(tmp_path / "elsewhere")}) == ids[0]


# --- nights that do not start


def test_an_empty_log_does_not_start(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is empty: it holds no event"):
        run(
            make_config(source={"log": str(write_lines(tmp_path / "log.jsonl", []))}),
            run_date=DAY,
            load=fake(),
        )


def test_judgements_of_no_query_do_not_start(make_config: MakeConfig, tmp_path: Path) -> None:
    queries = write_lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "who wrote dune"}])
    for name, cells in (
        ("qrels", "of-another-set\tdune\t1"),
        ("sentence_qrels", "of-another-set\tdune\t0\t1"),
    ):
        judged = write_lines(tmp_path / f"{name}.tsv", [cells])
        config = make_config(evaluation={"queries": str(queries), name: str(judged)})
        with pytest.raises(
            JudgementError, match="judges no query of .*; check that both are of the same set and split"
        ) as raised:
            run(config, run_date=DAY, load=forbidden())
        assert str(judged) in str(raised.value)
        with pytest.raises(ConfigError, match=r"evaluation\.queries"):
            run(make_config(evaluation={name: str(judged)}), run_date=DAY, load=forbidden())


@pytest.mark.parametrize("key", ["source.log", "source.index", "output.path"])
def test_a_missing_setting_is_named(make_config: MakeConfig, key: str) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=f"'{key}' is not set; see examples/nightly.toml"):
        run(make_config(**{section: {name: ""}}), run_date=DAY, load=fake())


def test_a_search_by_names_needs_tags(make_config: MakeConfig) -> None:
    config = make_config(candidates={"second_search": "names"}, tags={"enabled": False})
    with pytest.raises(ConfigError, match=r"needs tags.enabled = true"):
        run(config, run_date=DAY, load=fake())
