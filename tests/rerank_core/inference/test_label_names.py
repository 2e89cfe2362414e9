"""Which of two labels is relevant: by names as models have them, never by a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rerank_core.errors import ModelError
from rerank_core.inference.label_names import relevant_label

FOLDER = Path("model")
PAIRS = [
    ("entailment", "not_entailment"),
    ("entailment", "contradiction"),
    ("ENTAILS", "CONTRADICTS"),
    ("relevant", "irrelevant"),
    ("Relevant", "Not relevant"),
    ("relevant", "non-relevant"),
    ("yes", "no"),
    ("true", "false"),
    ("True", "False"),
    ("positive", "negative"),
    ("POS", "NEG"),
    ("duplicate", "not_duplicate"),
    ("paraphrase", "not paraphrase"),
    ("match", "no_match"),
    ("LABEL_1", "LABEL_0"),
    ("1", "0"),
]


@pytest.mark.parametrize(("relevant", "other"), PAIRS)
def test_the_relevant_one_of_two_names(relevant: str, other: str) -> None:
    for index, names in ((0, (relevant, other)), (1, (other, relevant))):
        id2label = {str(i): name for i, name in enumerate(names)}
        label2id = {name: i for i, name in enumerate(names)}
        for config in ({"id2label": id2label}, {"label2id": label2id}):
            assert relevant_label(config, FOLDER) == index
        assert relevant_label({"id2label": id2label, "label2id": label2id}, FOLDER) == index


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"id2label": None},
        {"id2label": {"0": "LABEL_0"}},
        {"id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"}},
    ],
)
def test_labels_without_names_or_not_two(config: dict[str, Any]) -> None:
    assert relevant_label(config, FOLDER) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("human", "machine"),
        ("entailment", "neutral"),
        ("yes", "true"),
        ("no", "false"),
        ("notable", "notary"),
        ("", ""),
    ],
)
def test_names_that_do_not_say_it_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(
        ModelError, match=r"id2label in model/config.json names .*set it to .*as the model was trained"
    ):
        relevant_label({"id2label": dict(enumerate(names))}, FOLDER)


def test_names_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(
        ModelError, match=r"model/config.json id2label is 0: 'no', 1: 'yes' and label2id 0: 'yes'"
    ):
        relevant_label({"id2label": {"0": "no", "1": "yes"}, "label2id": {"yes": 0, "no": 1}}, FOLDER)


@pytest.mark.parametrize("names", [["no", "yes"], {"no": "yes"}, "no"])
def test_names_of_another_type_are_refused(names: Any) -> None:
    with pytest.raises(ModelError, match="needed are objects of indices and names"):
        relevant_label({"id2label": names}, FOLDER)
