"""The published columns: documented, versioned, and just what the records and the row builders give."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa
import pytest

from schemas.records import (
    Rejected,
)
from schemas.tables import DEAD_LETTERS, RERANKED, TABLES, schema_version
from schemas.tags import Tags

ARROW = {str: pa.string(), int: pa.int32(), float: pa.float32(), bool: pa.bool_()}
TAGS = Tags(1, "Background", ("Dune",), True, False)


def arrow_type(hint: Any) -> pa.DataType:
    """The column type of a record's field."""
    if get_origin(hint) is tuple:
        return pa.list_(pa.field("element", ARROW[get_args(hint)[0]]))
    return ARROW[hint]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_it_holds(name: str) -> None:
    schema = TABLES[name]
    assert schema_version(schema) >= 1
    assert schema.metadata[b"table"] == name.encode()
    for field in schema:
        doc = (field.metadata or {}).get(b"doc", b"").decode()
        assert len(doc) > 20, field.name
        assert doc.endswith("."), field.name
        assert not field.nullable or "null" in doc, field.name
    assert len(set(schema.names)) == len(schema.names)


def test_a_schema_without_a_version_is_not_ours() -> None:
    with pytest.raises(ValueError, match="not a table published by Nightrank"):
        schema_version(pa.schema([("a", pa.string())]))


def test_tags_are_columns() -> None:
    for name, hint in get_type_hints(Tags).items():
        assert RERANKED.field(name).type == arrow_type(hint), name
        assert RERANKED.field(name).nullable, name  # plain mode has none


def test_dead_letters_are_the_rejected_records() -> None:
    assert DEAD_LETTERS.names == [*Rejected._fields]
    for name, hint in get_type_hints(Rejected).items():
        assert DEAD_LETTERS.field(name).type == arrow_type(hint), name
    assert not any(field.nullable for field in DEAD_LETTERS)


def test_the_training_view_is_in_the_order_that_trainers_read() -> None:
    assert TABLES["training_pairs"].names == ["query", "passage", "label"]
