from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipes.default_model import trainer
from pipelines.recipes.default_model.network import ModelSpec, PairModel, load_model
from rerank_core.features.render import special_tokens
from tests.support.tiny_pair_model import write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def ready(base: Path) -> tuple[Any, Callable[..., PairModel]]:
    """The tokenizer with the tags, and a function that loads the model with fields of its ModelSpec."""
    tokenizer, pieces = trainer.extend_tokenizer(base, special_tokens())
    return tokenizer, lambda **spec: load_model(
        base, spec=ModelSpec(closed_layers=1, **spec), new_tokens=pieces
    )
