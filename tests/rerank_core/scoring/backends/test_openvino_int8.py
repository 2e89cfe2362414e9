"""Static quantisation: close to full precision, and independent of the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "rerank_core.scoring.backends.openvino", reason="openvino is not installed", exc_type=ImportError
)

from rerank_core.errors import ModelError
from rerank_core.inference.model_folder import OPENVINO_INT8
from rerank_core.scoring.backends.openvino import OpenVinoScorer
from rerank_core.scoring.backends.openvino_int8 import quantise
from tests.rerank_core.scoring.backends.test_openvino import PAIRS, many

MakeModel = Callable[..., Path]


def test_static_int8_ranks_as_fp32_and_row_by_row_as_in_batches(make_transformer: MakeModel) -> None:
    folder = make_transformer()
    pairs = many(120)
    full = OpenVinoScorer(folder, max_length=60).score(pairs)
    assert quantise(folder, pairs, max_length=60) == folder / OPENVINO_INT8
    scorer = OpenVinoScorer(folder, precision="int8", max_length=60)
    small = scorer.score(pairs)
    # A model so small, of random weights, loses more than a real one.
    assert np.corrcoef(full, small)[0, 1] > 0.9
    assert np.abs(full - small).max() > 0
    alone = np.concatenate([scorer.score([pair]) for pair in pairs])
    np.testing.assert_allclose(small, alone, atol=1e-4)


def test_quantising_what_is_quantised_or_without_pairs(make_model: MakeModel) -> None:
    from onnxruntime.quantization import quantize_dynamic

    folder = make_model()
    quantize_dynamic(folder / "onnx/model.onnx", folder / "onnx/int8.onnx")
    with pytest.raises(ModelError, match="is already quantised"):
        quantise(folder, PAIRS, onnx_file="onnx/int8.onnx")
    with pytest.raises(ValueError, match="no pairs to calibrate with"):
        quantise(folder, [])
