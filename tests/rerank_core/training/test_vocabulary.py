"""Tags as tokens of a model."""

from __future__ import annotations

from pathlib import Path

import torch

from rerank_core.features.render import special_tokens
from rerank_core.training.base_model import load_cross_encoder
from rerank_core.training.vocabulary import extend_vocabulary
from tests.support.tiny_models import write_cross_encoder


def test_a_new_token_starts_as_the_mean_of_its_words(tmp_path: Path) -> None:
    model = load_cross_encoder(write_cross_encoder(tmp_path / "bert"), max_length=32)
    old = model.model.get_input_embeddings().weight.detach().clone()

    assert extend_vocabulary(model, special_tokens()) == len(special_tokens())
    assert extend_vocabulary(model, special_tokens()) == 0

    new = model.model.get_input_embeddings().weight
    ids = model.tokenizer("role definition", add_special_tokens=False)["input_ids"]
    number = model.tokenizer.convert_tokens_to_ids("[ROLE:Definition]")
    torch.testing.assert_close(new[number], old[ids].mean(0))
    assert torch.equal(new[: len(old)], old)
    assert model.tokenizer.tokenize("[ROLE:Definition] who")[0] == "[ROLE:Definition]"
