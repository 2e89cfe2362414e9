"""The part of `benchmarks.scoring` that measures memory."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import numpy as np

from benchmarks.common import peak_rss_mb
from rerank_core.inference.model_folder import read_json
from rerank_core.scoring.load import load_scorer


def memory(count: int, folder: str) -> float:
    """Peak memory in MB of scoring `count` pairs without repetitions."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory, (count, folder))


def _memory(count: int, folder: str) -> float:
    scorer = load_scorer(folder, backend="openvino", max_length=64)
    random = np.random.default_rng(0)
    words = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"])
    for start in range(0, count, 5000):
        size = min(5000, count - start)
        picked = random.choice(words, (size, 24))
        lengths = random.integers(2, 20, size)
        scorer.score(
            [(" ".join(p[:4]), " ".join(p[4 : 4 + n])) for p, n in zip(picked, lengths, strict=True)]
        )
    return peak_rss_mb()


def tiny_model(tokenizer_of: Path, to: Path) -> Path:
    """A cross-encoder of one small layer with the tokenizer of another model."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from benchmarks.base_model import export

    to.mkdir(parents=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_of / file, to / file)
    vocabulary = read_json(tokenizer_of / "config.json")["vocab_size"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=1,
        attn_implementation="eager",
    )
    model = BertForSequenceClassification(config)
    model.config.save_pretrained(to)
    export(model, to / "onnx" / "model.onnx")
    return to
