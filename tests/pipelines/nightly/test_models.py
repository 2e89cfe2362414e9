"""What the models of a night change: calibration its scores, fusion its order, with the same logits."""

from __future__ import annotations

import json
import math
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import night_summary
from pipelines.nightly.run import run
from rerank_core.errors import ConfigError, ModelError
from rerank_core.ranking import calibration
from rerank_core.ranking.calibration import Calibration
from rerank_core.ranking.fusion import FILE
from rerank_core.ranking.order import sigmoid
from rerank_core.scoring.load import load_scorer
from tests.conftest import MakeConfig
from tests.support.tiny import DAY, rows
from tests.support.tiny_onnx import write_model

CALIBRATION = Calibration(0.5, -1.0)
RECORD = {"method": "platt", "ece_before": 0.2, "ece_after": 0.02}


def write_weights(folder: Path, weights: dict[str, float], *, bi_encoder: str = "") -> None:
    record = {"weights": weights, "bias": -0.5, "bi_encoder": bi_encoder, "questions": 9}
    (folder / FILE).write_text(json.dumps(record))


def by_query(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {query: list(own) for query, own in groupby(found, key=lambda row: row["query_id"])}


def test_a_fused_night_ranks_by_the_weights_and_reuses_the_logits(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model")
    config = make_config(scoring={"model": str(model)})
    plain = run(config, run_date=DAY)
    before = {(row["query_id"], row["passage_id"]): row for row in rows(tmp_path / "output", plain)}
    assert plain.fusion is None
    assert all(row["fused_logit"] is None for row in before.values())
    write_weights(model, {"cross_encoder": 1.0, "bm25": -3.0, "one_hop": -2.0})
    night = run(config, run_date=DAY)
    after = rows(tmp_path / "output", night)
    assert night.run_id != plain.run_id
    assert night.balance.pairs["reused"] == night.balance.pairs["read"] == len(after)
    assert (night.fusion or {})["weights"] == {"cross_encoder": 1.0, "bm25": -3.0, "one_hop": -2.0}
    assert night.stages["RankCandidates"]["fused"] == len(after)
    assert any(row["rank"] != before[row["query_id"], row["passage_id"]]["rank"] for row in after)
    for own in by_query(after).values():
        scores = [row["bm25_score"] for row in own]
        mean = sum(scores) / len(scores)
        spread = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5 or 1.0
        for row in own:
            assert row["logit"] == before[row["query_id"], row["passage_id"]]["logit"]
            bm25 = 2 * math.tanh((row["bm25_score"] - mean) / spread / 2)
            wanted = row["logit"] - 3 * bm25 - 2 * (row["hop"] == 1) - 0.5
            assert row["fused_logit"] == pytest.approx(wanted, abs=1e-4)
            assert row["score"] == pytest.approx(sigmoid(row["fused_logit"]), abs=1e-6)
        assert [row["fused_logit"] for row in own] == sorted(
            (row["fused_logit"] for row in own), reverse=True
        )
    scores_of = {(row["query_id"], row["passage_id"]): row["score"] for row in after}
    for row in rows(tmp_path / "output", night, "hard_negatives"):
        margin = (
            scores_of[row["query_id"], row["positive_id"]] - scores_of[row["query_id"], row["negative_id"]]
        )
        assert row["margin"] == pytest.approx(margin, abs=1e-6)
    night_summary.print_night(night, str(tmp_path / "output"))
    assert "fusion ranks by cross_encoder +1, bm25 -3, one_hop -2" in capsys.readouterr().out
    off = run(make_config(scoring={"model": str(model)}, fusion={"use": "off"}), run_date=DAY)
    assert off.fusion is None
    assert [row["rank"] for row in rows(tmp_path / "output", off)] == [row["rank"] for row in before.values()]


def test_weights_elsewhere_and_weights_that_are_not_there(make_config: MakeConfig, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    with pytest.raises(ModelError, match=r"fusion\.json holds no weights"):
        run(make_config(scoring={"model": str(model)}, fusion={"use": "on"}), run_date=DAY)
    named = make_config(scoring={"model": str(model)}, fusion={"weights": str(tmp_path / "mine.json")})
    with pytest.raises(ModelError, match=r"mine\.json holds no weights"):
        run(named, run_date=DAY)
    write_weights(tmp_path, {"cross_encoder": 2.0})
    found = {"weights": str(tmp_path / FILE)}
    night = run(make_config(scoring={"model": str(model)}, fusion=found), run_date=DAY)
    for row in rows(tmp_path / "output", night):
        assert row["fused_logit"] == pytest.approx(2 * row["logit"] - 0.5, abs=1e-5)


def test_weights_for_tags_without_tags_are_reported(make_config: MakeConfig, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    write_weights(model, {"cross_encoder": 1.0, "one_hop": 1.0})
    night = run(make_config(scoring={"model": str(model)}, tags={"enabled": False}), run_date=DAY)
    assert "tags.enabled = false" in str(night.degraded["fusion"])


def test_a_bi_encoder_takes_part_in_the_order(make_config: MakeConfig, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the tiny bi-encoder runs on torch")
    from tests.support.tiny_models import write_cross_encoder

    model, bi = write_model(tmp_path / "model"), write_cross_encoder(tmp_path / "bi", task="Model")
    fingerprint = load_scorer(bi, backend="bi_encoder", max_length=64).fingerprint
    write_weights(model, {"cross_encoder": 1.0, "bi_encoder": 20.0}, bi_encoder=fingerprint)
    with_bi_encoder = {"bi_encoder": str(bi), "max_length": 64}
    with pytest.raises(ConfigError, match="name it"):
        run(make_config(scoring={"model": str(model)}), run_date=DAY)
    idle = make_config(scoring={"model": str(write_model(tmp_path / "plain"))}, fusion=with_bi_encoder)
    with pytest.raises(ConfigError, match="would have no effect"):
        run(idle, run_date=DAY)
    config = make_config(scoring={"model": str(model)}, fusion=with_bi_encoder)
    night = run(config, run_date=DAY)
    found = rows(tmp_path / "output", night)
    assert night.cascade is None
    for row in found:
        assert row["fused_logit"] == pytest.approx(row["logit"] + 20 * row["cheap_score"] - 0.5, abs=1e-4)
    fewer = make_config(scoring={"model": str(model)}, fusion=with_bi_encoder, ranking={"top_n": 2})
    again = run(fewer, run_date=DAY)
    assert again.stages["PruneCandidates"]["cheap_scored"] == 0  # cosines are carried over as logits are
    other = {"enabled": True, "model": str(model), "max_loss": 0.2, "sample_queries": 12}
    both = make_config(scoring={"model": str(model)}, fusion=with_bi_encoder, cascade=other)
    with pytest.raises(ConfigError, match="one first-stage score"):
        run(both, run_date=DAY)


def test_a_cascade_beside_fusion_loses_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    write_weights(model, {"cross_encoder": 1.0, "bm25": 1.0})
    cascade = {"enabled": True, "max_loss": 0.5, "sample_queries": 2}
    night = run(make_config(scoring={"model": str(model)}, cascade=cascade), run_date=DAY)
    for row in rows(tmp_path / "output", night):
        assert (row["fused_logit"] is None) == (row["logit"] is None)


# --- calibration


def test_scores_are_calibrated_and_logits_are_reused(make_config: MakeConfig, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    config = make_config(scoring={"model": str(model)})
    plain = run(config, run_date=DAY)
    before = rows(tmp_path / "output", plain)
    assert plain.calibration is None
    calibration.write(model, CALIBRATION, figures=RECORD)
    night = run(config, run_date=DAY)
    after = rows(tmp_path / "output", night)
    assert (night.calibration or {})["ece_after"] == 0.02
    assert night.run_id != plain.run_id
    assert night.balance.pairs["reused"] == night.balance.pairs["read"]  # no logit depends on it
    for first, second in zip(before, after, strict=True):
        assert (first["passage_id"], first["logit"], first["rank"]) == (
            second["passage_id"],
            second["logit"],
            second["rank"],
        )
        assert first["score"] == pytest.approx(sigmoid(first["logit"]), rel=1e-6)
        assert second["score"] == pytest.approx(CALIBRATION(first["logit"]), rel=1e-6)
        if second["evidence_logit"] is not None:
            assert second["evidence_score"] == pytest.approx(CALIBRATION(second["evidence_logit"]), rel=1e-6)
    for row in rows(tmp_path / "output", night, "hard_negatives"):
        margin = CALIBRATION(row["positive_logit"]) - CALIBRATION(row["negative_logit"])
        assert row["margin"] == pytest.approx(margin, abs=1e-6)
    off = run(make_config(scoring={"model": str(model), "calibrate": False}), run_date=DAY)
    assert off.calibration is None
    assert [row["score"] for row in rows(tmp_path / "output", off)] == [row["score"] for row in before]


def test_a_damaged_calibration_stops_the_night(make_config: MakeConfig, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / calibration.FILE).write_text("{")
    with pytest.raises(ModelError, match="is not a valid calibration"):
        run(make_config(scoring={"model": str(model)}), run_date=DAY)
    assert not (tmp_path / "output").exists()


def test_a_model_whose_batches_are_wrong_is_run_row_by_row_and_reported(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    broken = str(write_model(tmp_path / "broken", masked=False))
    night = run(make_config(scoring={"model": broken}), run_date=DAY)
    assert "scoring.model: a row of " in str(night.degraded["row_by_row"])
    sound = run(make_config(scoring={"model": str(write_model(tmp_path / "sound"))}), run_date=DAY)
    assert "row_by_row" not in sound.degraded
