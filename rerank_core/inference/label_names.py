"""Which of a classifier's two labels is "relevant", by the names in config.json."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rerank_core.errors import ModelError
from rerank_core.text import shorten

_RELEVANT = {
    *("1", "label 1"),
    *"""
    correct duplicate entail entailed entailment entails equivalent good helpful match matching paraphrase pos
    positive related relevance relevant same similar supported supports true yes
    """.split(),
}
_IRRELEVANT = {
    *("0", "label 0"),
    *"""
    bad contradict contradiction contradicts different dissimilar false incorrect irrelevant mismatch neg
    negative no refuted refutes unhelpful unrelated unsupported wrong
    """.split(),
}
_NEGATION = re.compile(r"(?:not|non|no) ?(?=\w)")


def relevant_label(config: dict[str, Any], folder: Path) -> int:
    """Index of the relevant one of two labels; 1, the second, where labels have no names or are not two.

    Args:
        config: of config.json.
        folder: of the model, for the message.

    Raises:
        ModelError: names that do not say which is relevant, or `id2label` and `label2id` that contradict each other.
    """
    names = _names(config, folder)
    if len(names) != 2:
        return 1
    kinds = [_is_relevant(names.get(index, "")) for index in (0, 1)]
    if kinds in ([True, False], [False, True]):
        return kinds.index(True)
    raise ModelError(
        f"id2label in {folder / 'config.json'} names the two labels {_shown(names)}, which does not say which one is "
        'relevant; set it to {"0": "irrelevant", "1": "relevant"}, or the other way round, as the model was trained'
    )


def _names(config: dict[str, Any], folder: Path) -> dict[int, str]:
    """Each label's name; {} if config.json names none."""
    given, indices = config.get("id2label"), config.get("label2id")
    try:
        names = {int(index): str(name) for index, name in (given or {}).items()}
        by_name = {int(index): str(name) for name, index in (indices or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise ModelError(
            f"id2label and label2id in {folder / 'config.json'} are {shorten(str(given))} and "
            f"{shorten(str(indices))}; needed are objects of indices and names"
        ) from None
    if len(names) == 2 and len(by_name) == 2 and names != by_name:
        raise ModelError(
            f"in {folder / 'config.json'} id2label is {_shown(names)} and label2id {_shown(by_name)}; make them agree, "
            "as the model was trained"
        )
    return names or by_name


def _is_relevant(name: str) -> bool | None:
    """Whether a label of this name is the relevant one; None if the name does not say."""
    words = re.sub(r"[\W_]+", " ", name.casefold()).strip()
    if words in _RELEVANT:
        return True
    if words in _IRRELEVANT:
        return False
    negated = _NEGATION.match(words)
    return False if negated and words[negated.end() :] in _RELEVANT else None


def _shown(names: dict[int, str]) -> str:
    return shorten(", ".join(f"{index}: {name!r}" for index, name in sorted(names.items())))
