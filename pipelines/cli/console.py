"""Output: results on stdout, everything else on stderr; progress bars on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rerank_core.redact import redact

logger = logging.getLogger("pipelines")
LOG_EVERY_SECONDS = 10.0

out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def print_error(message: str) -> None:
    """Print an error that the user can act on."""
    err.print(f"[bold red]error:[/] {printable(' '.join(redact(message).split()))}", soft_wrap=True)


@contextmanager
def counter(action: str, *, unit: str, show: bool) -> Iterator[Callable[[int], None]]:
    """A counter of unknown total: yields a callback that takes how many more units were done."""
    done = 0
    logged = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not (show and err.is_terminal), transient=True) as bar:
        task = bar.add_task(f"{action} ({unit})", total=None)

        def count(more: int) -> None:
            nonlocal done, logged
            done += more
            bar.update(task, completed=done)
            if show and not err.is_terminal and time.monotonic() - logged > LOG_EVERY_SECONDS:
                logged = time.monotonic()
                logger.info("%s: %s %s", action, f"{done:,}", unit)

        yield count


def printable(text: str) -> str:
    """Untrusted text, safe to print: not read as markup, and without the terminal's control characters."""
    return escape("".join(c for c in text if c.isprintable() or c == "\n"))


def cut(text: str, width: int) -> str:
    """Untrusted text on one line, safe to print, of at most `width` columns of a terminal: a wide letter takes two."""
    # Cut first: a text may have millions of characters, of which each that is seen takes a column or two.
    line = "".join(c for c in " ".join(text[: 20 * width].split()) if c.isprintable())
    if len(text) > 20 * width or cell_len(line) > width:
        line = f"{set_cell_size(line, width - 1).rstrip()}…"
    return escape(line)


def file_size(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
