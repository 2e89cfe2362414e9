"""Nights that may not be published, or do not start: the last one stays in service, and the reason is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.nightly.run import run
from pipelines.storage import runs
from rerank_core.errors import ConfigError, NightError, ScoringFailed
from tests.conftest import MakeConfig, Night
from tests.support.fakes import fake
from tests.support.invariants import assert_balanced
from tests.support.tiny import (
    DAY,
    Tiny,
    event,
    rows,
    write_lines,
)


def test_a_failed_night_leaves_the_last_one_in_service(
    night: Night, started: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in started.rglob("*.*") if path.is_file()}
    with pytest.raises(ScoringFailed, match="broken on purpose"):
        run(make_config(), run_date=DAY, load=fake("new", broken=True))
    assert {path: path.read_bytes() for path in before} == before
    assert runs.latest(str(started)) == night.manifest
    assert runs.table_files(str(started), night.manifest, "reranked")
    manifest = run(make_config(), run_date=DAY, load=fake("new"))
    assert runs.latest(str(started)) == manifest


def test_a_failure_in_a_worker_process_keeps_its_class_and_message(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    flags = ["--direct_num_workers=1", "--direct_running_mode=multi_processing"]
    with pytest.raises(ScoringFailed, match="^the fake model is broken on purpose"):
        run(make_config(), run_date=DAY, load=fake(broken=True), beam_flags=flags)


def test_one_pair_without_a_score_costs_only_itself(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(output={"max_rejected_share": 0.3})
    manifest = run(config, run_date=DAY, load=fake(nan_for="Stanislaw Lem was born", fails_for="Snow falls"))
    letters = rows(tmp_path / "output", manifest, "dead_letters")
    assert {(row["unit"], row["reason"]) for row in letters} == {
        ("pair", "nan_logit"),
        ("pair", "model_error"),
    }
    assert {row["record"].split("/")[1] for row in letters} == {"lem", "snow"}
    assert manifest.balance.pairs["rejected"] == len(letters)
    assert manifest.balance.queries["rejected"] == 0
    assert_balanced(manifest)
    published = rows(tmp_path / "output", manifest)
    assert len(published) == manifest.balance.pairs["published"]
    assert np.isfinite([row["logit"] for row in published]).all()
    assert not {"lem", "snow"} & {row["doc_id"] for row in published}


def test_too_many_rejects_stop_publication(tiny: Tiny, make_config: MakeConfig, tmp_path: Path) -> None:
    output = tmp_path / "dead_letters_and_more"
    config = make_config(source={"log": str(tiny.log)}, output={"path": str(output)})
    with pytest.raises(NightError, match="5 of 14 events were rejected") as raised:
        run(config, run_date=DAY, load=fake())
    assert "output.max_rejected_share = 0.05" in str(raised.value)
    assert runs.latest(str(output)) is None
    left = [path.parent.name for path in output.glob("_staging/**/*") if path.is_file()]
    assert left == ["dead_letters"]  # to look into


def test_a_night_without_queries_says_where_they_went(make_config: MakeConfig, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [event("dune", at="2020-01-01T00:00:00Z"), event("")])
    with pytest.raises(NightError, match="2 events read, 1 outside the window") as raised:
        run(make_config(source={"log": str(log)}), run_date=DAY, load=fake())
    assert "ReadQueryLog/empty_query 1" in str(raised.value)
    assert "--run-date" in str(raised.value)
    assert runs.latest(str(tmp_path / "output")) is None


def test_a_night_whose_queries_find_nothing_is_not_published(make_config: MakeConfig, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [event("qqqq zzzz")])
    with pytest.raises(NightError, match="none of 1 queries could be reranked: FetchCandidates/no_cand"):
        run(make_config(source={"log": str(log)}), run_date=DAY, load=fake())


def test_an_unknown_flag_does_not_start(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--direct_num_worker=2"):
        run(make_config(), run_date=DAY, load=fake(), beam_flags=["--direct_num_worker=2"])
    assert not (tmp_path / "output").exists()
