"""Smoke tests on a tiny random encoder: no downloaded weights."""

import numpy as np
import pytest
import torch

from pipelines.recipes.default_model import trainer
from rerank_core.features.render import special_tokens
from tests.support.tiny_pair_model import PAIRS, logits


def test_tags_are_one_token_each(ready):
    tokenizer, _ = ready
    ids = tokenizer(" ".join(special_tokens()), add_special_tokens=False)["input_ids"]
    assert len(set(ids)) == len(ids) == len(special_tokens())


def test_training_lifts_the_positive_and_leaves_frozen_parts(ready, tmp_path):
    tokenizer, load = ready
    model = load()
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    batch = trainer.Batch(PAIRS, [4], [np.zeros(4, dtype=np.float32)], [1.0], [0.0])
    spec = trainer.TrainSpec(minutes=0.05, learning_rate=1e-3)
    seen = []
    facts = trainer.train(
        model, iter(lambda: batch, None), tokenizer=tokenizer, spec=spec, on_step=seen.append
    )
    assert facts["steps"] == len(seen)
    assert seen[-1]["gold"] < seen[0]["gold"]
    assert all(torch.equal(value, dict(model.named_parameters())[n]) for n, value in frozen.items())
    trainer.save_weights(model, tmp_path / "w.safetensors")
    again = load()
    trainer.load_weights(again, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(logits(again, tokenizer, PAIRS), logits(model, tokenizer, PAIRS))


def test_loss_by_hand():
    batch = trainer.Batch(PAIRS[:2], [2], [np.array([0.0, np.log(3)], dtype=np.float32)], [1.0], [0.5])
    parts = trainer.loss(torch.tensor([0.0, 0.0]), batch, trainer.TrainSpec(level_weight=0.1))
    half = float(np.log(2))
    taught = half + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)  # KL of (1/4, 3/4) from (1/2, 1/2)
    assert parts["gold"].item() == pytest.approx(half)
    assert parts["teacher"].item() == pytest.approx(0.5 * taught)
    assert parts["total"].item() == pytest.approx(1.1 * half + 0.5 * taught)


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.55, 0.5), (1.0, 0.0), (2.0, 0.0)]
)
def test_schedule_rises_then_falls_to_zero(progress, factor):
    assert trainer.schedule(progress, warm_up=0.1) == pytest.approx(factor)


def test_blend_is_a_line():
    start, end = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}
    assert trainer.blend(start, end, 0.25)["w"].tolist() == [1.0, 2.0]
