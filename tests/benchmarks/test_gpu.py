"""The figures of GPUs, rehearsed on the processor: the same code and script on small models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers", reason="needs pip install 'nightrank[train]'")

ROOT = Path(__file__).parents[2]


def test_the_script_measures_every_part(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["benchmarks/gpu.sh", tmp_path],
        cwd=ROOT,
        env=os.environ | {"PATH": path, "DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    figures = json.loads((tmp_path / "gpu.json").read_text())
    for name in (
        "bf16_peak_tflops",
        *(
            f"{figure}_{model}"
            for figure in ("ratio_vs_st", "peak_share")
            for model in ("minilm", "base", "large")
        ),
        *(f"tokens_per_second_{length}" for length in (32, 64, 128, 256, 512)),
        "causal_pairs_per_second",
        "onnx_ratio",
        "night_share",
    ):
        assert figures[f"gpu_{name}"] > 0, name
    assert figures["gpu_parity_fp32"] < 1e-3  # the same engine twice
    assert figures["gpu_rank_agreement_bf16"] > 0.9
    assert figures["gpu_memory_difference"] < 0.2
    assert "done" in (tmp_path / "gpu.log").read_text()


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "no CUDA device; --device cpu rehearses")
