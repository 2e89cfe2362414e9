"""A calibration fitted from Python: on numbers whose truth is known, and on the bundled set with a real model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.evaluate.calibrate import Pair, as_json, calibrate, calibrate_pairs, store
from rerank_core.errors import CalibrationError, ModelError
from rerank_core.ranking import calibration
from rerank_core.ranking.calibration import FILE
from rerank_core.scoring.load import DEFAULT_MODEL

SAMPLE = Path(__file__).parents[3] / "sample_data"


def judged(questions: int, *, seed: int) -> list[Pair]:
    """Twenty candidates a question, of an overconfident model: its logits are twice what they should be."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(-1, 4, (questions, 20))
    relevant = draw.random(logits.shape) < 1 / (1 + np.exp(-logits / 2))
    return [
        Pair(f"q{n}", float(logit), bool(label))
        for n in range(questions)
        for logit, label in zip(logits[n], relevant[n], strict=True)
    ]


def test_the_reported_error_is_that_of_unseen_questions() -> None:
    found = calibrate_pairs({"one": judged(100, seed=1), "two": judged(50, seed=2)}, method="platt")
    assert found.pairs == {"one": 2000, "two": 1000}
    assert found.calibration.scale == pytest.approx(0.5, abs=0.06)
    unseen = judged(2000, seed=9)
    for error, of in ((found.before, calibration.UNCALIBRATED), (found.after, found.calibration)):
        truth = calibration.expected_error([of(p.logit) for p in unseen], [p.relevant for p in unseen])
        assert error == pytest.approx(truth, abs=0.03)
    assert found.after < 0.04 < found.before
    assert sum(count for *_, count in found.bins_after) == 3000
    assert json.loads(json.dumps(as_json(found)))["calibration"]["knots"] == []


def test_the_order_of_pairs_does_not_matter() -> None:
    pairs = judged(60, seed=3)
    one, other = (calibrate_pairs({"s": own}, method="isotonic") for own in (pairs, pairs[::-1]))
    assert one.calibration == other.calibration
    assert one.after == pytest.approx(other.after)


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(CalibrationError, match="judged scores are relevant"):
        calibrate_pairs({"s": judged(1, seed=1)}, method="platt")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    found = calibrate_pairs({"s": judged(40, seed=4)}, method="temperature")
    with pytest.raises(ModelError, match=r"cannot write .*nosuch"):
        store(str(tmp_path / "nosuch"), found)


def test_python_fits_what_the_command_fits(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEFAULT_MODEL, model)
    scored: list[int] = []
    sizes: dict[str, Any] = {"max_queries": 30, "top_k": 8, "on_scored": scored.append}
    dry = calibrate(str(model), [SAMPLE], **sizes, dry_run=True)
    assert dry.path is None
    assert sum(scored) == dry.pairs["sample_data"]
    stored = calibrate(str(model), [SAMPLE], **sizes)
    assert stored.path == model / FILE
    assert calibration.read(model) == stored.calibration == dry.calibration
    flags = ["--max-queries", "30", "--top-k", "8", "--dry-run", "--json"]
    done = CliRunner().invoke(app, ["calibrate", str(model), str(SAMPLE), *flags])
    assert json.loads(done.stdout) == json.loads(json.dumps(as_json(dry)))
