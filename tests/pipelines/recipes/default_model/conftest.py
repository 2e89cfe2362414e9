from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pipelines.recipes.default_model.items import Item
from pipelines.recipes.default_model.network import Tower
from pipelines.recipes.default_model.questions import SetPassage
from pipelines.recipes.default_model.texts import States
from pipelines.recipes.default_model.trainer import texts_of
from rerank_core.scoring.backends.bi_encoder_folder import SingleEncoder, read_sentence_folder
from tests.support.tiny_models import write_bi_encoder


def passage(doc_id: str, text: str) -> SetPassage:
    return SetPassage(doc_id, "", text)


ITEMS = [
    Item(
        "nq",
        False,
        "who wrote the novel",
        (passage("a", "frank herbert wrote dune"),),
        (passage("b", "sand moves"),),
    ),
    Item(
        "squad",
        False,
        "sand",
        (passage("c", "dune was sand"), passage("d", "the sand moves")),
        (passage("a", "frank herbert wrote dune"), passage("e", "who by")),
        (passage("f", "the novel"),),
    ),
    Item("nq", True, "herbert", (passage("a", "frank herbert wrote dune"),), (passage("e", "who by"),)),
]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bi_encoder(tmp_path_factory.mktemp("base") / "model", initializer_range=0.2)


@pytest.fixture
def make_tower(base: Path) -> Callable[[], Tower]:
    """A function that makes the untrained network; its lowest layer of three is frozen."""
    return lambda: Tower(base, pooling="mean", frozen=1, scale=20.0).eval()


@pytest.fixture
def make_states(base: Path, tmp_path: Path) -> Callable[[Tower], States]:
    """A function that computes the states of the items' texts."""

    def make(tower: Tower) -> States:
        encoder = SingleEncoder(
            Tokenizer.from_file(str(base / "tokenizer.json")), max_length=32, vocabulary=10_000, lower=True
        )
        states = States(
            tmp_path / "states",
            texts_of(ITEMS),
            tower=tower,
            encoder=encoder,
            settings=read_sentence_folder(base),
        )
        states.compute()
        return states

    return make
