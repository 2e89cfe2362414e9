"""The last layer works on the first token alone, where the model reads no other, and logits stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "rerank_core.scoring.backends.openvino", reason="openvino is not installed", exc_type=ImportError
)

from rerank_core.scoring.backends.onnx import OnnxScorer
from rerank_core.scoring.backends.openvino import OpenVinoScorer, read_model
from rerank_core.scoring.backends.openvino_cls import keep_first_token
from tests.support.tiny_onnx import KINDS

MakeModel = Callable[..., Path]
PAIRS = [
    ("who wrote dune", "dune was written by frank herbert"),
    ("who wrote dune", ""),
    ("sand", "it moves, " * 9),
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_is_shortened_for_every_kind_that_reads_one_token(
    make_transformer: MakeModel, kind: str
) -> None:
    pooled = {"classifier_pooling": "cls"} if kind == "modernbert" else {}
    model = read_model(make_transformer(kind, **pooled) / "onnx" / "model.onnx")
    products = sum(node.get_type_name() == "MatMul" for node in model.get_ops())
    # Query, attention twice, output, two of the feed-forward network. ModernBERT's halves of it are cut by a shape that
    # is computed from the whole, where the choice stops.
    assert keep_first_token(model) == (1 if kind == "modernbert" else 6)
    assert sum(node.get_type_name() == "MatMul" for node in model.get_ops()) == products


def test_a_model_that_reads_all_tokens_is_left_alone(make_model: MakeModel) -> None:
    folder = make_model(token_types=True)
    assert keep_first_token(read_model(folder / "onnx" / "model.onnx")) == 0
    np.testing.assert_allclose(
        OpenVinoScorer(folder).score(PAIRS), OnnxScorer(folder).score(PAIRS), atol=1e-5
    )
