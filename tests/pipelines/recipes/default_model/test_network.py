"""The network of the recipe, on a tiny random encoder: no downloaded weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

from pipelines.recipes.default_model.network import Tower
from pipelines.recipes.default_model.texts import States, passage_side, query_text
from rerank_core.scoring.backends.bi_encoder import BiEncoderScorer
from tests.pipelines.recipes.default_model.conftest import ITEMS


def test_untrained_its_vectors_are_the_bases(
    base: Path, make_tower: Callable[[], Tower], make_states: Callable[[Tower], States]
) -> None:
    tower = make_tower()
    states = make_states(tower)
    scorer = BiEncoderScorer(base, engine="torch", max_length=32)
    for side, texts in (
        ("query", [query_text(item.query) for item in ITEMS]),
        ("passage", [passage_side(p) for p in ITEMS[1].passages]),
    ):
        expected = scorer.embed([text.text for text in texts], side=side)  # type: ignore[arg-type]
        with torch.no_grad():
            found = tower.upper(*states.get(texts)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-2)  # states are computed in bf16, too
        np.testing.assert_allclose(states.vectors(texts), expected, atol=2e-2)


def test_its_weights_have_the_encoders_names(base: Path, make_tower: Callable[[], Tower]) -> None:
    state = make_tower().encoder_state()
    wanted = AutoModel.from_pretrained(base, add_pooling_layer=False).state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], value) for name, value in wanted.items())


def test_only_upper_layers_and_the_scale_are_trained(make_tower: Callable[[], Tower]) -> None:
    trained = {name for name, p in make_tower().named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained if name != "scale"} == {"1", "2"}
    assert "scale" in trained


def test_states_of_an_earlier_run_are_read(
    make_tower: Callable[[], Tower], make_states: Callable[[Tower], States]
) -> None:
    tower = make_tower()
    texts = [query_text(ITEMS[0].query)]
    expected = make_states(tower).get(texts)[0]
    tower.lower = None  # type: ignore[assignment,method-assign]
    assert torch.equal(make_states(tower).get(texts)[0], expected)
    assert make_states(tower).get(texts, limit=3)[0].shape[1] == 3
