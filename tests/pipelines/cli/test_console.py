"""What goes to the terminal."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from pipelines.cli import console


def test_untrusted_text_is_neither_markup_nor_a_control_sequence() -> None:
    out = Console(record=True, width=80)
    out.print(console.printable("[bold]x[/bold] \x1b[31mred\a\nnext"))
    assert out.export_text() == "[bold]x[/bold] [31mred\nnext\n"


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 kB"), (1_500, "2 kB"), (999_999, "1000 kB"), (2_540_000, "2.5 MB")]
)
def test_file_sizes(size: int, shown: str) -> None:
    assert console.file_size(size) == shown


def test_elsewhere_than_on_a_terminal_progress_is_log_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(console, "LOG_EVERY_SECONDS", -1.0)
    caplog.set_level(logging.INFO, "pipelines")
    with console.counter("Indexing", unit="passages", show=True) as count:
        count(1_000)
        count(500)
    with console.counter("Indexing", unit="passages", show=False) as count:
        count(7)
    assert [record.getMessage() for record in caplog.records] == [
        "Indexing: 1,000 passages",
        "Indexing: 1,500 passages",
    ]


@given(st.text(), st.integers(2, 40))
def test_a_title_of_anything_fits_into_its_columns(text: str, width: int) -> None:
    shown = Text.from_markup(console.cut(text, width)).plain
    assert cell_len(shown) <= width
    assert "\n" not in shown
    assert shown.isprintable()


def test_wide_letters_take_two_columns() -> None:
    assert console.cut("short", 10) == "short"
    assert console.cut("日本語のとても長い題名", 10) == "日本語の…"
    assert console.cut("x" * 5_000_000, 10) == "x" * 9 + "…"
    assert console.cut("a\x1b[2J\u202eb [bold]c", 60) == "a[2Jb \\[bold]c"
