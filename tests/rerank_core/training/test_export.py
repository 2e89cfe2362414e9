"""A torch model as ONNX, and in int8."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from rerank_core.training.export import export_onnx, quantise_dynamic


class Sum(torch.nn.Module):
    """A logit of each row of ids: its embeddings, summed and multiplied by a vector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.table, self.head = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.table(ids).sum(1))
        return logits


def run(path: Path, ids: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input_ids": ids})
    return np.asarray(logits)


def test_both_files_score_batches_of_any_size_as_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Sum()
    fp32, int8 = tmp_path / "onnx" / "model.onnx", tmp_path / "int8" / "model.onnx"
    with caplog.at_level(logging.WARNING):
        export_onnx(model, fp32, sample={"input_ids": torch.ones(2, 3, dtype=torch.int64)})
        quantise_dynamic(fp32, int8)

    ids = np.random.default_rng(7).integers(0, 50, (5, 9))
    expected = model(torch.from_numpy(ids)).detach().numpy()
    np.testing.assert_allclose(run(fp32, ids), expected, atol=1e-5)
    assert 0 < np.abs(run(int8, ids) - expected).max() < 0.2
    assert int8.stat().st_size < fp32.stat().st_size
    assert not [record for record in caplog.records if "quantization" in record.getMessage()]
