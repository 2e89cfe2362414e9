"""The name of a run: a hash of what determines its rows, equal on every machine and in every version of the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pipelines
from pipelines.beam_options import beam_options
from pipelines.nightly import models
from pipelines.nightly.prepare import prepare
from rerank_core.ranking import calibration, fusion
from rerank_core.ranking.calibration import Calibration
from rerank_core.ranking.fusion import Fusion
from tests.conftest import MakeConfig
from tests.support.fakes import fake, load_fake
from tests.support.tiny import DAY, write_lines


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "__version__", "1.2.3")


# These two change with the configuration's fields and defaults, the tagger's version and the fingerprints of log and
# index. Where nothing of that was changed, a new id means that every user's nights get other ids.


@pytest.mark.usefixtures("version")
def test_the_run_id_of_a_given_scorer_is_pinned(make_config: MakeConfig) -> None:
    night = prepare(make_config(), run_date=DAY, options=beam_options([]), load=fake())
    assert night.run.run_id == "20260308-d143023df2e2"


@pytest.mark.usefixtures("version")
def test_the_run_id_of_a_configured_model_is_pinned(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load_scorer", load_fake)
    (tmp_path / "model").mkdir()
    calibration.write(tmp_path / "model", Calibration(0.5, -1.0), told={"method": "platt"})
    weights = Fusion((1.0, 0.5, *[0.0] * (len(fusion.FEATURES) - 2)), -0.25)
    fusion.write(tmp_path / "model" / fusion.FILE, weights, told={})
    labels: dict[str, Any] = {
        "source": "qrels",
        "queries": str(write_lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "who wrote dune"}])),
        "qrels": str(write_lines(tmp_path / "qrels.tsv", ["query-id\tcorpus-id\tscore", "q1\tdune\t1"])),
    }
    cascade = {"enabled": True, "model": "first-stage", "max_loss": 0.5, "sample_queries": 2}
    config = make_config(scoring={"model": str(tmp_path / "model")}, labels=labels, cascade=cascade)
    night = prepare(config, run_date=DAY, options=beam_options([]))
    assert night.run.run_id == "20260308-d4a65492641a"
