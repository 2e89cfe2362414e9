"""What a folder says besides its weights: each row gets the logit that the model's own library gives it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
sentence_transformers = pytest.importorskip("sentence_transformers")
transformers = pytest.importorskip("transformers")

from rerank_core.scoring.backends.torch import TorchScorer
from tests.rerank_core.inference.test_encoding import wordpiece
from tests.support.tiny_models import SIZES, fast_tokenizer

PAIRS = [
    ("who wrote dune", "dune was written by frank herbert"),
    ("who", "sand moves the sand moves the sand by herbert frank who wrote"),
    ("the novel", "x"),
    ("", ""),
]
Folder = Path


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


def of_the_library(folder: Path, pairs: list[tuple[str, str]] = PAIRS, **options: Any) -> np.ndarray:
    """sentence-transformers' logits, each pair alone."""
    model = sentence_transformers.CrossEncoder(str(folder), max_length=60, device="cpu", **options)
    alone = [model.predict([pair], activation_fn=torch.nn.Identity())[0] for pair in pairs]
    return np.array(alone)


# Padding: the tokenizer fills rows, the model's configuration decides positions or the last token


@pytest.mark.parametrize("unpadded", [True, False])
@pytest.mark.parametrize("pad", [0, 1, 5])
@pytest.mark.parametrize("name", ["Roberta", "XLMRoberta", "Camembert", "Bert", "Electra"])
def test_positions_follow_the_padding_token_of_the_configuration(
    tmp_path: Path, name: str, pad: int, unpadded: bool
) -> None:
    folder = write(tmp_path, name, pad_token_id=pad)
    logits = TorchScorer(folder, max_length=60, unpadded=unpadded).score(PAIRS)
    np.testing.assert_allclose(logits, of_the_library(folder), atol=1e-4)


DECODERS = {
    "Qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "Llama": {"num_key_value_heads": 2},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 130},
    "Mistral": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 9},
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [0, 3, -1, None])
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoders_last_token_follows_the_padding_token_of_the_configuration(
    tmp_path: Path, name: str, pad: int | None, side: str
) -> None:
    """3 ends every row; without a token in the configuration the last one counts."""
    config = dict(DECODERS[name], pad_token_id=pad, eos_token_id=3, bos_token_id=2)
    folder = write(tmp_path, name, **config)
    edit(folder / "tokenizer_config.json", padding_side=side)
    scorer = TorchScorer(folder, max_length=60)
    expected = of_the_library(folder)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-4)
    np.testing.assert_allclose([scorer.score([pair])[0] for pair in PAIRS], expected, atol=1e-4)


@pytest.mark.parametrize("pad", ["[SEP]", None])
def test_a_decoder_with_no_padding_token_to_spare(tmp_path: Path, pad: str | None) -> None:
    """The tokenizer's padding ends every row, or there is none: rows are filled with a token that is in none."""
    folder = write(tmp_path, "Qwen3", **DECODERS["Qwen3"], pad_token_id=None)
    edit(folder / "tokenizer_config.json", pad_token=pad)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder
    )  # sentence-transformers pads a single pair too
    with torch.no_grad():
        expected = [model(**tokenizer([pair], return_tensors="pt")).logits.item() for pair in PAIRS]
    np.testing.assert_allclose(TorchScorer(folder, max_length=60).score(PAIRS), expected, atol=1e-4)


# Two labels


@pytest.mark.parametrize("names", [("entailment", "not_entailment"), ("no", "yes"), ("LABEL_0", "LABEL_1")])
def test_the_logit_is_the_relevant_labels(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = write(tmp_path, "Bert", typed=True, num_labels=2, id2label=dict(enumerate(names)))
    logits = of_the_library(folder)
    relevant = 0 if names[0] == "entailment" else 1
    expected = logits[:, relevant] - logits[:, 1 - relevant]
    np.testing.assert_allclose(TorchScorer(folder, max_length=60).score(PAIRS), expected, atol=1e-4)
