"""The folder of the default model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.recipes.default_model.network import Tower
from rerank_core.scoring.backends.bi_encoder_folder import Logit
from rerank_core.scoring.load import load_scorer

PAIRS = [("who wrote the novel", "frank herbert wrote dune"), ("sand", "the sand moves"), ("sand", "")]


def test_the_written_model_scores_as_the_trained_one(
    base: Path, make_tower: Callable[[], Tower], tmp_path: Path
) -> None:
    write = pytest.importorskip("pipelines.recipes.default_model.write", reason="needs onnx and onnxruntime")
    tower = make_tower()
    full = write.write_model(tower, tmp_path / "model", base=base, logit=Logit(20.0, -8.0))
    expected = load_scorer(base, backend="torch", max_length=32).score(PAIRS)
    np.testing.assert_allclose(
        load_scorer(full, backend="torch", max_length=32).score(PAIRS), expected, atol=1e-4
    )
    np.testing.assert_allclose(load_scorer(full, max_length=32).score(PAIRS), expected, atol=1e-3)
    small = load_scorer(tmp_path / "model", max_length=32)
    np.testing.assert_allclose(small.score(PAIRS), expected, atol=0.3)
    assert not list((tmp_path / "model").glob("*.safetensors"))
    assert (tmp_path / "model" / "modules.json").is_file()

    with_other_weights = make_tower()
    for parameter in with_other_weights.layers[2].parameters():
        parameter.data *= 1.5
    write.write_model(with_other_weights, tmp_path / "model", base=base, logit=Logit(20.0, -8.0))
    assert not np.allclose(load_scorer(tmp_path / "model", max_length=32).score(PAIRS), expected, atol=0.3)
