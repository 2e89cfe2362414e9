"""Whatever a file holds, reading it as JSON or TOML gives its value or a ValueError."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.parsing import parse_json, parse_toml


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"a": -' + "9" * 5000 + "}", "", b"\xff", "{", "nul"],
)
def test_json_that_cannot_be_read_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="."):
        parse_json(text)


@pytest.mark.parametrize(
    "value", ["[" * 100_000, "9" * 5000, "0x" + "F" * 5000, "{a=" * 100_000, "'", "nan x"]
)
def test_toml_that_cannot_be_read_is_a_value_error(value: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_toml(f"a = {value}")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_is_read(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@given(st.text() | st.binary())
def test_any_text_is_read_or_a_value_error(text: str | bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_json(text)
    if isinstance(text, str):
        with contextlib.suppress(ValueError):
            parse_toml(text)
