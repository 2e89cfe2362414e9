"""ONNX Runtime where a device or its memory is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from rerank_core.errors import ModelError
from rerank_core.scoring.backends.onnx import OnnxScorer

MakeModel = Callable[..., Path]
QUERY = "who wrote the novel dune"
PAIRS = [
    (QUERY, "dune was written by frank herbert"),
    (QUERY, ""),
    ("sand", "the sand moves by the dune, " * 6),
    (QUERY, "the novel dune"),
]


def test_a_night_does_not_fall_back_to_the_cpu_untold(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    folder = make_model()
    for device in ("cuda", "tensorrt"):
        with pytest.raises(
            ModelError, match=rf"scoring.device is '{device}'.*nightrank\[gpu\].*allow_fallback"
        ):
            OnnxScorer(folder, device=device)
        allowed = OnnxScorer(folder, device=device, allow_fallback=True)
        assert allowed.device == "cpu"
        np.testing.assert_array_equal(allowed.score(PAIRS), OnnxScorer(folder).score(PAIRS))
        assert allowed.fingerprint == OnnxScorer(folder).fingerprint


def test_the_end_of_the_memory_halves_the_batches(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = OnnxScorer(make_model(), max_tokens=4096)
    expected = scorer.score(PAIRS)
    run = scorer._session._session.run

    class Small:
        def run(self, outputs: Any, inputs: dict[str, np.ndarray]) -> Any:
            if inputs["input_ids"].size > 100:
                raise RuntimeError(
                    "[ONNXRuntimeError] bfc_arena.cc: Failed to allocate memory for requested buffer"
                )
            return run(outputs, inputs)

    monkeypatch.setattr(scorer._session, "_session", Small())
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-6)
    assert scorer.halvings > 0
    halved = scorer.halvings
    scorer.score(PAIRS)
    assert scorer.halvings == halved  # the smaller budget stays
