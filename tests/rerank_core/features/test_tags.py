"""The table of tags: every line names a tag, whose values are of the field's type."""

from __future__ import annotations

from typing import get_origin

import pytest

from rerank_core.config.night import Tagging
from rerank_core.features.tags import Tag, TagInput, all_tags, input_tags
from schemas.records import PassageFacts
from schemas.tags import FIELDS


@pytest.mark.parametrize("name", FIELDS)
def test_a_tag_gives_values_of_its_field(name: str) -> None:
    kind, tag = FIELDS[name][0], all_tags()[name]
    given = TagInput(
        "q", PassageFacts((), 1, "", False), [("", "a")], [PassageFacts((), 1, "", True)], ["p"], Tagging()
    )
    for value in (*tag.compute(given), *tag.values):
        assert isinstance(value, get_origin(kind) or kind)
    assert tag.ideal is None or tag.ideal in tag.values
    assert len(set(tag.forms)) == len(tag.values)


def test_the_model_is_shown_labels_that_differ() -> None:
    labels = [tag.label for tag in input_tags().values()]
    assert labels == ["HOP", "ROLE", "ENT", "CAUSAL", "REASONING"]


def test_a_flag_has_no_value_and_everything_else_has() -> None:
    assert [name for name, tag in input_tags().items() if not tag.has_value] == ["causal", "reasoning"]


def test_what_tags_share_is_computed_once() -> None:
    calls = []

    def shared(given: TagInput) -> int:
        calls.append(given)
        return len(calls)

    tag = Tag(lambda given: [given.once(shared)])
    given = TagInput("q", PassageFacts((), 1, "", False), [], [], [], Tagging())
    assert (tag.compute(given), tag.compute(given), len(calls)) == ([1], [1], 1)
    other = TagInput("q", PassageFacts((), 1, "", False), [], [], [], Tagging())
    assert tag.compute(other) == [2]
