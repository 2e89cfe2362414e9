"""Training on a tiny random encoder: no downloaded weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.recipes.default_model import trainer
from pipelines.recipes.default_model.items import Draw, Drawn
from pipelines.recipes.default_model.network import Tower
from pipelines.recipes.default_model.texts import States, passage_side
from tests.pipelines.recipes.default_model.conftest import ITEMS

SPEC = trainer.TrainSpec(
    steps=20, learning_rate=1e-3, warm_up=2, teacher_weight=0.0, draw=Draw(queries=2, made=0.0)
)
Setting = tuple[Tower, States]


@pytest.fixture
def setting(make_tower: Callable[[], Tower], make_states: Callable[[Tower], States]) -> Callable[[], Setting]:
    def make() -> Setting:
        tower = make_tower()
        return tower, make_states(tower)

    return make


def vectors(tower: Tower, states: States) -> np.ndarray:
    with torch.no_grad():
        return trainer.encode(tower, states, [passage_side(p) for p in ITEMS[1].passages]).numpy()


def test_training_lifts_positives_and_leaves_frozen_parts(
    setting: Callable[[], Setting], tmp_path: Path
) -> None:
    tower, states = setting()
    frozen = {n: p.clone() for n, p in tower.named_parameters() if not p.requires_grad}
    seen: list[dict[str, float]] = []
    facts = trainer.train(
        tower, ITEMS, states, spec=SPEC, checkpoint=tmp_path / "last.pt", on_step=seen.append
    )
    assert facts["steps"] == len(seen) == 20
    assert np.mean([one["gold"] for one in seen[-5:]]) < 0.8 * np.mean([one["gold"] for one in seen[:5]])
    assert all(torch.equal(value, dict(tower.named_parameters())[n]) for n, value in frozen.items())
    trainer.save_weights(tower, tmp_path / "w.safetensors")
    again, _ = setting()
    trainer.load_weights(again, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(vectors(again, states), vectors(tower, states))


def test_a_stopped_training_goes_on_to_the_same_weights(
    setting: Callable[[], Setting], tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(step: int) -> None:
        if step == 10:
            raise StoppedError

    whole, states = setting()
    trainer.train(whole, ITEMS, states, spec=SPEC, checkpoint=tmp_path / "whole.pt", every=5)
    parts, states = setting()
    path = tmp_path / "parts.pt"
    with pytest.raises(StoppedError):
        trainer.train(parts, ITEMS, states, spec=SPEC, checkpoint=path, every=5, on_checkpoint=stop)
    resumed, states = setting()
    facts = trainer.train(resumed, ITEMS, states, spec=SPEC, checkpoint=path, every=5)
    assert facts["steps"] == 10
    for name, value in whole.state_dict().items():
        np.testing.assert_allclose(resumed.state_dict()[name], value, atol=1e-6, err_msg=name)


def test_a_batch_has_each_passage_once_and_no_positive_among_the_negatives(
    setting: Callable[[], Setting],
) -> None:
    _, states = setting()
    twin = ITEMS[1].positives[0]._replace(doc_id="twin")  # another document with the same text
    chosen = [
        Drawn(ITEMS[0], ITEMS[0].positives, ITEMS[0].negatives),
        Drawn(ITEMS[1], ITEMS[1].positives, (*ITEMS[1].negatives, twin)),
        Drawn(ITEMS[2], ITEMS[2].positives, ITEMS[2].negatives),
    ]
    batch = trainer.batch_of(chosen, states)
    assert len(batch.passages) == len(set(batch.passages)) == 6
    assert [states.length(text) for text in batch.passages] == sorted(map(states.length, batch.passages))
    assert [len(own) for own in batch.positives] == [1, 2, 1]
    assert [len(own) for own in batch.negatives] == [1, 2, 1]
    assert batch.made == [False, False, True]


def test_loss_by_hand() -> None:
    batch = trainer.Batch([], [], [[0, 1], [1]], [[2], [0]], [False, True])
    batch.queries.extend([None, None])  # type: ignore[list-item]
    logits = torch.tensor([[0.0, np.log(3), 0.0], [0.0, 0.0, 0.0]])
    teacher = torch.tensor([[0.0, np.log(3), 0.0], [0.0, np.log(2), 0.0]])
    parts = trainer.loss(logits, teacher, batch, trainer.TrainSpec(teacher_weight=0.5))
    apart = 0.25 * np.log(0.25) + 0.5 * np.log(0.5) + 0.25 * np.log(0.25) - np.log(1 / 3)
    assert parts["teacher"].item() == pytest.approx(apart / 2)  # the first query's is 0
    assert parts["gold"].item() == pytest.approx((np.log(2) + np.log(4 / 3)) / 2 / 2)
    assert parts["total"].item() == pytest.approx(parts["gold"].item() + parts["teacher"].item())


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (69, 1.0), (85, 0.5), (100, 0.0)])
def test_schedule_rises_stays_and_falls_to_zero(step: int, factor: float) -> None:
    spec = trainer.TrainSpec(steps=100, warm_up=10, decay=0.3)
    assert trainer.schedule(step, spec) == pytest.approx(factor)


def test_blend_is_a_line() -> None:
    start, end = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}
    assert trainer.blend(start, end, 0.25)["w"].tolist() == [1.0, 2.0]
