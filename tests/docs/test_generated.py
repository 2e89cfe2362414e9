"""The generated parts of the pages, against the code that they follow from."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from docs.generate import DOCS, EXAMPLES, PAGES, Key, sections, updated


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_up_to_date(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    assert updated(name, page) == page, "run: python -m docs.generate"


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"docs/commands\.md lacks the lines"):
        updated("commands.md", "# Commands\n")


def test_text_outside_the_markers_stays() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    changed = updated("commands.md", page.replace("# Commands", "# All commands") + "\nmore\n")
    assert changed.startswith("# All commands\n")
    assert changed.endswith("\nmore\n")


def test_annotated_toml_is_parsed() -> None:
    text = 'a = 1  # first\n   # and more\n# of the file\n\n[b.c]  # what b.c is\n       # continued\nd = ["x"]\n'
    top, table = sections(text.splitlines())
    assert (top.header, top.meaning, top.keys) == ("", "", [Key("a", "1", "first and more")])
    assert (table.header, table.meaning, table.keys) == (
        "[b.c]",
        "what b.c is continued",
        [Key("d", '["x"]', "")],
    )


@pytest.mark.parametrize("name", ["nightly.toml", "train.toml"])
def test_every_key_of_an_annotated_toml_is_on_its_page(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    found = {
        (section.header.strip("[]"), key.name)
        for section in sections(text.splitlines())
        for key in section.keys
        if key.default != "{}"
    }
    assert found == set(_keys(tomllib.loads(text)))


def _keys(node: dict[str, Any], header: str = "") -> Iterator[tuple[str, str]]:
    """(table, key) of every key; empty tables have none."""
    for name, value in node.items():
        inner = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        if isinstance(inner, dict):
            yield from _keys(inner, f"{header}.{name}".strip("."))
        else:
            yield header, name
