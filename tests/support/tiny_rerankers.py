"""Tiny cross-encoders in folders, as transformers and sentence-transformers save them, and the logits of the latter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
sentence_transformers = pytest.importorskip("sentence_transformers")
transformers = pytest.importorskip("transformers")

from tests.rerank_core.inference.test_encoding import wordpiece
from tests.support.tiny_models import SIZES, fast_tokenizer

PAIRS = [
    ("who wrote dune", "dune was written by frank herbert"),
    ("who", "sand moves the sand moves the sand by herbert frank who wrote"),
    ("the novel", "x"),
    ("", ""),
]


def write(folder: Path, name: str, *, typed: bool = False, tokenizer: Any = None, **config: Any) -> Path:
    """A sequence classifier of an architecture with a WordPiece tokenizer whose [PAD] is 0."""
    made = tokenizer or fast_tokenizer(wordpiece(), typed=typed)
    torch.manual_seed(0)
    settings = {**SIZES, "num_labels": 1, "max_position_embeddings": 130, "vocab_size": len(made), **config}
    model = getattr(transformers, f"{name}ForSequenceClassification")(
        getattr(transformers, f"{name}Config")(**settings)
    )
    model.eval().save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def of_the_library(folder: Path, pairs: list[tuple[str, str]] = PAIRS, *, max_length: int = 60) -> np.ndarray:
    """sentence-transformers' logits, each pair alone."""
    model = sentence_transformers.CrossEncoder(str(folder), max_length=max_length, device="cpu")
    alone = [model.predict([pair], activation_fn=torch.nn.Identity())[0] for pair in pairs]
    return np.array(alone)


def saved(folder: Path, source: Path, **options: Any) -> Path:
    """A sequence classifier as sentence-transformers saves it, with options of CrossEncoder."""
    sentence_transformers.CrossEncoder(str(source), **options).save_pretrained(str(folder))
    return folder
