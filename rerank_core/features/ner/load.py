"""What a named-entity recogniser is, and the table of them; each has a file of its own here.

`spacy` is the default: the small pipeline that ships with Nightrank, or any installed one. `rules` goes by capitals and
needs no model; `transformers` and `onnx` run token-classification models. A recogniser sees one passage, neither the
query nor other candidates, so that its mentions can be reused from night to night.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rerank_core.config.night import Tagging
from rerank_core.errors import ConfigError
from schemas.records import Mention

LABELS = ("PER", "ORG", "LOC", "MISC")


class Recogniser(Protocol):
    """Finds named entities. `recognise` gives the same mentions for a passage in any batch."""

    @property
    def fingerprint(self) -> str:
        """Identity of everything that decides a mention: implementation, weights, parameters."""
        ...

    def recognise(self, passages: Sequence[tuple[str, str]]) -> list[tuple[Mention, ...]]:
        """Mentions in the text of each (title, text), in the order of the text; they do not overlap.

        The title is context (for the rules it proves that a word is a name); mentions are of the text alone.
        """
        ...


def load_recogniser(config: Tagging, *, threads: int = 0) -> Recogniser:
    """The recogniser of the configuration; it loads its model at the first passage.

    `threads` is the number of threads that a token-classification model may use in this process; 0: one per core.

    Raises:
        ConfigError: no model is configured for a recogniser that needs one.
        ModelError, MissingEngine: the model or its engine is missing.
    """
    return RECOGNISERS[config.recogniser](config, threads)


def _rules(config: Tagging, threads: int) -> Recogniser:
    from rerank_core.features.ner.rules import RulesRecogniser

    return RulesRecogniser()


def _spacy(config: Tagging, threads: int) -> Recogniser:
    from rerank_core.features.ner.spacy import SpacyRecogniser

    return SpacyRecogniser(config.recogniser_model or None)


def _transformers(config: Tagging, threads: int) -> Recogniser:
    from rerank_core.features.ner.transformers import TransformersRecogniser

    return TransformersRecogniser(_model(config))


def _onnx(config: Tagging, threads: int) -> Recogniser:
    from rerank_core.features.ner.onnx import OnnxRecogniser

    return OnnxRecogniser(_model(config), threads=threads)


def _model(config: Tagging) -> str:
    if not config.recogniser_model:
        raise ConfigError(
            f"tags.recogniser = {config.recogniser!r} needs a model: set tags.recogniser_model to a folder or a name"
        )
    return config.recogniser_model


RECOGNISERS: dict[str, Callable[[Tagging, int], Recogniser]] = {
    "spacy": _spacy,
    "rules": _rules,
    "transformers": _transformers,
    "onnx": _onnx,
}
