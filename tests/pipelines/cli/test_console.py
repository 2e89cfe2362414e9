"""What goes to the terminal."""

from __future__ import annotations

import logging

import pytest
from rich.console import Console

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
