"""Who finds the named entities of a passage: one protocol, one file an implementation.

`rules` needs nothing and reads capitals; `spacy` is the default, a small pipeline that ships with Nightrank, or any
installed one; `transformers` and `onnx` run token-classification models. A recogniser sees a passage and nothing
else: neither the query nor the other candidates, so that what it finds can be kept from one night to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rerank_core.config.night import Tagging
from rerank_core.errors import ConfigError
from schemas.records import Mention

LABELS = ("PER", "ORG", "LOC", "MISC")


class Recogniser(Protocol):
    """Finds entities. `recognise` gives the same mentions for a passage whatever else stands in the call."""

    @property
    def fingerprint(self) -> str:
        """Identity of all that decides a mention: implementation, weights, parameters."""
        ...

    def recognise(self, passages: Sequence[tuple[str, str]]) -> list[tuple[Mention, ...]]:
        """Mentions in the text of each (title, text), in the order of the text; they do not overlap.

        The title is context (the rules take it as proof that a word is a name); mentions are of the text alone.
        """
        ...


def load_recogniser(config: Tagging, *, threads: int = 0) -> Recogniser:
    """The recogniser that the configuration names; it opens its model at the first passage.

    `threads` are those that a token-classification model may use in this process; 0: one a core.

    Raises:
        ConfigError: a recogniser that needs a model, without one.
        ModelError, MissingEngine: the model or what runs it is not there.
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
            f"tags.recogniser = {config.recogniser!r} needs tags.recogniser_model: a folder, or a name"
        )
    return config.recogniser_model


RECOGNISERS: dict[str, Callable[[Tagging, int], Recogniser]] = {
    "spacy": _spacy,
    "rules": _rules,
    "transformers": _transformers,
    "onnx": _onnx,
}

__all__ = ["LABELS", "RECOGNISERS", "Mention", "Recogniser", "load_recogniser"]
