"""A process that dies at the n-th change it makes to a folder, wherever that is in the code; a disk that fills up."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")


_NEEDS_SPACE = ("open", "os.mkdir", "os.link", "os.symlink")


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


class _Watch:
    """Counts the changes under a folder, and ends with `Killed` before one of them; then none is made any more."""

    def __init__(self) -> None:
        self.folder, self.step, self.seen, self.full = "", -1, 0, False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder or (event != "open" and event not in _CHANGES):
            return
        if event == "open" and not (
            isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            return
        paths = arguments[:1] if event == "open" else arguments[:2]  # an open's second argument is its mode
        if not any(_place(path, arguments).startswith(self.folder) for path in paths):
            return
        if self.full and event not in _NEEDS_SPACE:
            return
        self.seen += 1
        if self.seen > self.step >= 0 and self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        if self.seen > self.step >= 0:
            raise Killed(f"at change {self.step}: {event} {arguments}")


def _place(path: Any, arguments: tuple[Any, ...]) -> str:
    """A path of an event; shutil.rmtree gives a name, and last the descriptor of its folder."""
    if not isinstance(path, str | Path):
        return ""
    folder = arguments[-1]
    if os.path.isabs(path) or not isinstance(folder, int) or folder < 0:
        return str(path)
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)


_WATCH = _Watch()
sys.addaudithook(_WATCH)


@contextmanager
def full_disk(folder: Path, *, at: int = sys.maxsize) -> Iterator[Callable[[], None]]:
    """Within it, what needs space in a local folder fails from its change number `at` (from 0) on.

    Yields:
        A function that fills the disk when it is called.
    """
    _WATCH.folder, _WATCH.step, _WATCH.seen, _WATCH.full = str(folder), at, 0, True

    def fill() -> None:
        _WATCH.step = 0

    try:
        yield fill
    finally:
        _WATCH.folder, _WATCH.full = "", False


@contextmanager
def killed(folder: Path, *, at: int) -> Iterator[None]:
    """Within it, the change number `at` (from 0) to a local folder, and every later one, raises `Killed` instead."""
    _WATCH.folder, _WATCH.step, _WATCH.seen = str(folder), at, 0
    try:
        yield
    except Killed:
        pass
    finally:
        _WATCH.folder = ""


def count_changes() -> int:
    """Changes that the last `killed` block made, or tried to."""
    return _WATCH.seen
