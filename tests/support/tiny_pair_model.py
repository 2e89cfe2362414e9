"""A tiny random encoder as the base of the default model's recipe, without downloaded weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from pipelines.recipes.default_model import trainer
from rerank_core.features.render import Rendered

WORDS = "the rhine elbe rises in alps hills where does hop none 0 1 2 3 role main".split()


PAIRS = [
    Rendered("where does the rhine rises", f"the {river} rises in the {place}")
    for river in ("rhine", "elbe")
    for place in ("alps", "hills alps the alps")
]


def write_base(folder: Path) -> Path:
    """A BERT encoder with its tokenizer."""
    # [CLS] must have BERT's own id, 101, which the model puts where the passage begins.
    unused = [f"[unused{i}]" for i in range(99)]
    vocabulary = ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(vocabulary)}).save_pretrained(folder)
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def logits(model: Any, tokenizer: Any, pairs: Sequence[Rendered]) -> np.ndarray:
    with torch.no_grad():
        return model(**trainer.encode(tokenizer, pairs, max_length=64)).squeeze(-1).numpy()
