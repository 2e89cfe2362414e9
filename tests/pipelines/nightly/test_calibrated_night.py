"""A night whose model is calibrated: the same logits and order, scores that are probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.nightly.run import run
from rerank_core.errors import ModelError
from rerank_core.ranking import calibration
from rerank_core.ranking.calibration import FILE, Calibration
from rerank_core.ranking.order import sigmoid
from tests.conftest import MakeConfig
from tests.support.tiny import DAY, rows
from tests.support.tiny_onnx import write_model

HELD = Calibration(0.5, -1.0)
TOLD = {"method": "platt", "ece_before": 0.2, "ece_after": 0.02}


def test_scores_are_calibrated_and_logits_are_reused(make_config: MakeConfig, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    config = make_config(scoring={"model": str(model)})
    plain = run(config, run_date=DAY)
    before = rows(tmp_path / "output", plain)
    assert plain.calibration is None
    calibration.write(model, HELD, figures=TOLD)
    night = run(config, run_date=DAY)
    after = rows(tmp_path / "output", night)
    assert (night.calibration or {})["ece_after"] == 0.02
    assert night.run_id != plain.run_id
    assert night.balance.pairs["reused"] == night.balance.pairs["read"]  # no logit depends on it
    for one, other in zip(before, after, strict=True):
        assert (one["passage_id"], one["logit"], one["rank"]) == (
            other["passage_id"],
            other["logit"],
            other["rank"],
        )
        assert one["score"] == pytest.approx(sigmoid(one["logit"]), rel=1e-6)
        assert other["score"] == pytest.approx(HELD(one["logit"]), rel=1e-6)
        if other["evidence_logit"] is not None:
            assert other["evidence_score"] == pytest.approx(HELD(other["evidence_logit"]), rel=1e-6)
    for row in rows(tmp_path / "output", night, "hard_negatives"):
        margin = HELD(row["positive_logit"]) - HELD(row["negative_logit"])
        assert row["margin"] == pytest.approx(margin, abs=1e-6)
    off = run(make_config(scoring={"model": str(model), "calibrate": False}), run_date=DAY)
    assert off.calibration is None
    assert [row["score"] for row in rows(tmp_path / "output", off)] == [row["score"] for row in before]


def test_a_damaged_calibration_stops_the_night(make_config: MakeConfig, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / FILE).write_text("{")
    with pytest.raises(ModelError, match="is not a valid calibration"):
        run(make_config(scoring={"model": str(model)}), run_date=DAY)
    assert not (tmp_path / "output").exists()
