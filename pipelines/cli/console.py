"""The terminal: results on stdout, everything else on stderr; bars on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

logger = logging.getLogger("pipelines")
LOG_EVERY_SECONDS = 10.0

out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def print_error(message: str) -> None:
    """An error that the user can act on."""
    err.print(f"[bold red]error:[/] {printable(message)}", soft_wrap=True)


@contextmanager
def counter(what: str, *, unit: str, show: bool) -> Iterator[Callable[[int], None]]:
    """Give a callback that is told how many more were done; without a known end there is no estimate."""
    done = 0
    told = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not (show and err.is_terminal), transient=True) as bar:
        task = bar.add_task(f"{what} ({unit})", total=None)

        def count(more: int) -> None:
            nonlocal done, told
            done += more
            bar.update(task, completed=done)
            if show and not err.is_terminal and time.monotonic() - told > LOG_EVERY_SECONDS:
                told = time.monotonic()
                logger.info("%s: %s %s", what, f"{done:,}", unit)

        yield count


def printable(text: str) -> str:
    """Text of others as it stands: no markup of ours in it, and no control sequence of the terminal."""
    return escape("".join(c for c in text if c.isprintable() or c == "\n"))


def file_size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
