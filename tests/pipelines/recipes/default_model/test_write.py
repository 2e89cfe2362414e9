"""The folder of the default model."""

import numpy as np
import pytest
import transformers

from rerank_core.scoring.backends.onnx import OnnxScorer
from tests.support.tiny_pair_model import PAIRS, logits


def test_the_exported_model_scores_as_the_torch_one(base, ready, tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnx: pip install 'nightrank[train]'")
    write = pytest.importorskip("pipelines.recipes.default_model.write", reason="needs onnx and onnxruntime")
    tokenizer, load = ready
    model = load()
    config = transformers.BertConfig.from_pretrained(base)
    full = write.write_model(model, tmp_path / "model", tokenizer=tokenizer, config=config)
    pairs = [tuple(pair) for pair in PAIRS]
    np.testing.assert_allclose(OnnxScorer(full).score(pairs), logits(model, tokenizer, PAIRS), atol=1e-4)
    small = OnnxScorer(tmp_path / "model")
    assert np.isfinite(small.score(pairs)).all()
    assert small.score(pairs[:1])[0] == small.score(pairs)[0]
