"""The folder of a training, for every kind of encoder: the same logits by every way to load it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from sentence_transformers import CrossEncoder

from rerank_core.errors import TrainingError
from rerank_core.scoring.load import load_scorer
from rerank_core.training.package import ONNX, ONNX_INT8, write_package
from tests.support.tiny_models import write_cross_encoder

PAIRS = [
    ("who wrote dune", "frank herbert wrote the novel"),
    ("who", "sand moves"),
    ("the novel was", "dune by who"),
]


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "deberta-v2", "distilbert", "modernbert"])
def test_every_kind_of_encoder_is_exported(tmp_path: Path, kind: str) -> None:
    base = write_cross_encoder(tmp_path / "base", kind, initializer_range=0.05)

    check = write_package(base, tmp_path / "model", pairs=PAIRS, reads_tags=False, max_length=32)

    wanted = CrossEncoder(str(base), device="cpu").predict(PAIRS, activation_fn=torch.nn.Identity())
    loaded = CrossEncoder(str(tmp_path / "model"), device="cpu")
    np.testing.assert_array_equal(loaded.predict(PAIRS, activation_fn=torch.nn.Identity()), wanted)
    np.testing.assert_allclose(loaded.predict(PAIRS), 1 / (1 + np.exp(-wanted)), rtol=1e-5)
    scorer = load_scorer(tmp_path / "model", max_length=32)
    assert not scorer.reads_tags
    np.testing.assert_allclose(scorer.score(PAIRS), wanted, atol=1e-4)
    assert check.pairs == 3
    assert check.fp32_largest == pytest.approx(np.abs(scorer.score(PAIRS) - wanted).max(), abs=1e-6)
    small = onnx.load(tmp_path / "model" / ONNX_INT8)
    assert any(node.op_type == "DynamicQuantizeLinear" for node in small.graph.node)


def test_a_model_that_cannot_be_exported_says_where_its_weights_are(tmp_path: Path) -> None:
    base = write_cross_encoder(tmp_path / "base")
    (tmp_path / "model" / ONNX).mkdir(parents=True)  # where the file should be written
    with pytest.raises(TrainingError, match="cannot be exported to ONNX .*weights are in .*base"):
        write_package(base, tmp_path / "model", pairs=PAIRS, reads_tags=False, max_length=32)
