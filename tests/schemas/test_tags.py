"""The record of tags, and the way from a published row to it."""

from __future__ import annotations

import pytest

from schemas.tables import RERANKED
from schemas.tags import FIELDS, Tags

TAGS = Tags(1, "Background", ("Dune", "Rome"), True, False, ("Dune",))


def test_a_row_gives_the_tags_that_it_was_written_from() -> None:
    lists = {name: list(v) if isinstance(v, tuple) else v for name, v in TAGS._asdict().items()}
    assert Tags.from_row({"query": "q"} | lists) == TAGS


def test_a_row_without_tags_gives_none() -> None:
    assert Tags.from_row(dict.fromkeys(Tags._fields)) is None


def test_a_column_that_was_not_read_has_its_default() -> None:
    row = TAGS._asdict()
    del row["hop_chain"]
    assert Tags.from_row(row) == TAGS._replace(hop_chain=())
    del row["role"]
    with pytest.raises(TypeError, match="role"):
        Tags.from_row(row)


def test_every_field_is_a_column_in_the_published_order() -> None:
    published = [name for name in RERANKED.names if name in FIELDS]
    assert published == ["hop", "hop_chain", "role", "entities", "causal", "reasoning"]
    assert sorted(published) == sorted(Tags._fields)
