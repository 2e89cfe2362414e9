"""Where a process's time goes: spans of its threads, its processor and memory, as events of Chrome's trace format.

Off, and nearly free, unless the environment variable NIGHTRANK_TRACE names a folder. Worker processes inherit it, and
each process writes a file of its own there. `nightrank nightly --profile FILE` sets it and joins the files to one,
which https://ui.perfetto.dev shows. A trace never ends a night: what cannot be written is left out.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = "NIGHTRANK_TRACE"
EVERY_SECONDS = 0.2
"""Between two measurements of a process's processor time and memory."""


@contextlib.contextmanager
def span(name: str, **details: object) -> Iterator[None]:
    """Record how long the body took: by the clock, and of this thread's own processor time; the rest it waited.

    Args:
        name: what is done, such as "tokenise".
        details: of this time, such as the number of rows.
    """
    folder = os.environ.get(FOLDER)
    if not folder:
        yield
        return
    file, start, used = _file_of(folder, os.getpid()), time.monotonic_ns(), time.thread_time_ns()
    try:
        yield
    finally:
        took, used = time.monotonic_ns() - start, time.thread_time_ns() - used
        file.add(
            {
                "ph": "X",
                "name": name,
                "ts": start / 1e3,
                "dur": took / 1e3,
                "tdur": used / 1e3,
                "args": details,
            }
        )


@contextlib.contextmanager
def recording(folder: Path) -> Iterator[None]:
    """Record the spans of this process, and of those that it starts, in an empty folder."""
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[FOLDER]
        else:
            os.environ[FOLDER] = before
        _file_of.cache_clear()


def join(folder: Path) -> dict[str, Any]:
    """The trace of all processes that wrote to a folder, from its first event on, in the order of time."""
    events = [event for path in sorted(folder.glob("*.jsonl")) for event in _events(path)]
    first = min((event["ts"] for event in events), default=0.0)
    for event in events:
        event["ts"] -= first
    return {"traceEvents": sorted(events, key=lambda event: event["ts"]), "displayTimeUnit": "ms"}


def _events(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # the last line of a process that was killed
            yield json.loads(line)


class _File:
    """The events of one process, to which its threads add; its processor time and memory are measured meanwhile."""

    def __init__(self, folder: str, pid: int) -> None:
        self._folder, self._pid, self._lock = folder, pid, threading.Lock()
        self._path = Path(folder, f"{pid}.jsonl")
        self._threads: set[int] = set()
        threading.Thread(target=self._measure, name="trace", daemon=True).start()

    def add(self, event: dict[str, Any]) -> None:
        """Write an event of the calling thread."""
        thread = threading.get_native_id()
        of_thread = {"pid": self._pid, "tid": thread}
        lines = [event | of_thread]
        if thread not in self._threads:
            self._threads.add(thread)
            named = {"ph": "M", "name": "thread_name", "args": {"name": threading.current_thread().name}}
            lines.insert(0, named | {"ts": event["ts"]} | of_thread)
        text = "".join(json.dumps(line, default=str) + "\n" for line in lines)
        with self._lock, contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(text)

    def _measure(self) -> None:
        now, used = time.monotonic(), time.process_time()
        while os.environ.get(FOLDER) == self._folder:
            time.sleep(EVERY_SECONDS)
            before, now = now, time.monotonic()
            spent, used = time.process_time() - used, time.process_time()
            figures = {"processor cores": spent / (now - before)} | _memory()
            for name, value in figures.items():
                self.add({"ph": "C", "name": name, "ts": now * 1e6, "args": {"value": round(value, 3)}})


@functools.lru_cache(maxsize=1)
def _file_of(folder: str, pid: int) -> _File:
    """The file of this process; the id tells a forked process from its parent."""
    return _File(folder, pid)


def _memory() -> dict[str, float]:
    """Resident memory in MB, where /proc has it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"memory MB": pages * os.sysconf("SC_PAGE_SIZE") / 1e6}
    return {}
