"""Which recogniser a configuration names."""

from __future__ import annotations

import pytest

from rerank_core.config.night import Tagging
from rerank_core.errors import ConfigError
from rerank_core.features.ner import load_recogniser
from rerank_core.features.ner.rules import RulesRecogniser


def test_a_recogniser_is_loaded_by_its_name() -> None:
    assert isinstance(load_recogniser(Tagging(recogniser="rules")), RulesRecogniser)


@pytest.mark.parametrize("name", ["onnx", "transformers"])
def test_one_that_needs_a_model_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' needs a model: set tags.recogniser_model"):
        load_recogniser(Tagging(recogniser=name))  # type: ignore[arg-type]
