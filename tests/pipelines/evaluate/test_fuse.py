"""Fusion weights fitted from Python, as by the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.evaluate.fuse import Fused, as_json, fuse, store
from rerank_core.errors import ModelError
from rerank_core.ranking import fusion
from rerank_core.ranking.fusion import FEATURES, FILE, Fusion
from rerank_core.ranking.fusion_fit import FUSED, FusionFit
from tests.support.tiny_onnx import write_model
from tests.support.tiny_set import TOWNS, write_towns

MEANS = {"nDCG@10": 1 / 3, "MAP": 0.25}
FIT = FusionFit(
    Fusion(tuple(0.5 * (name == "bm25") for name in FEATURES), -1.0),
    ridge=math.inf,
    tag_share=0.0,
    best_single="bm25",
    figures={"towns": {"bm25": MEANS, FUSED: MEANS}},
    error={"towns": 0.02},
    used=24,
    left_out={},
)


def test_python_fits_what_the_command_fits(tmp_path: Path) -> None:
    towns = write_towns(tmp_path / "towns")
    model = write_model(tmp_path / "model")
    indexed: list[int] = []
    scored: list[int] = []
    dry = fuse(
        str(model), [towns], own=True, dry_run=True, on_indexed=indexed.append, on_scored=scored.append
    )
    assert (dry.path, (model / FILE).exists()) == (None, False)
    assert sum(indexed) == 2 * len(TOWNS)
    assert sum(scored) == 6 * len(TOWNS)
    command = ["fuse", str(model), str(towns), "--own", "--dry-run", "--json"]
    done = CliRunner().invoke(app, command)
    assert json.loads(done.stdout) == json.loads(json.dumps(as_json(dry)))
    assert fuse(str(model), [towns], own=True, no_tags=True).path == model / FILE
    assert not fusion.read(model / FILE).reads_tags


def test_the_figures_are_plain_data(tmp_path: Path) -> None:
    plain = json.loads(json.dumps(as_json(Fused(FIT, tmp_path / FILE)), allow_nan=False))
    assert plain == {
        "weights": {"bm25": 0.5},
        "bias": -1.0,
        "top": 0.0,
        "ridge": None,
        "tag_share": 0.0,
        "best_single": "bm25",
        "questions": 24,
        "ece": {"towns": 0.02},
        "left_out": {},
        "figures": {
            "towns": {"bm25": {"nDCG@10": 0.3333, "MAP": 0.25}, FUSED: {"nDCG@10": 0.3333, "MAP": 0.25}}
        },
        "path": str(tmp_path / FILE),
    }


def test_weights_are_stored_with_their_figures(tmp_path: Path) -> None:
    path = store(str(tmp_path), FIT)
    assert fusion.read(path) == FIT.fusion
    assert fusion.describe(path)["questions"] == 24
    with pytest.raises(ModelError, match=r"cannot write .*nosuch.*copy the model"):
        store(str(tmp_path / "nosuch"), FIT)
