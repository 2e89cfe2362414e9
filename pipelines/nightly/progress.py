"""Progress of a night: workers on this machine write small files, which the driver reads to draw a bar.

Files, since a worker may be another process. Workers on other machines write none, and then no progress is shown.
Progress never ends a night: what cannot be written or read is left out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipelines.nightly.shards import Shard

EVERY_SECONDS = 0.5
_logger = logging.getLogger("pipelines")


class ProgressFile:
    """The progress file of one shard, of how many of its `pairs` are scored. With `folder` None it does nothing."""

    def __init__(self, folder: str | None, shard: Shard, *, pairs: int):
        name = ".".join(map(str, (shard.number, *shard.part)))
        self._path = Path(folder, f"{name}.json") if folder else None
        self._state: dict[str, float | bool] = {
            "total": shard.total,
            "share": shard.share,
            "pairs": pairs,
            "scored": 0,
            "finished": False,
        }
        self._written = 0.0
        self._write()

    def add(self, scored: int) -> None:
        """Record that `scored` more inputs were scored; the file is written at most twice a second."""
        self._state["scored"] += scored
        if time.monotonic() - self._written > EVERY_SECONDS:
            self._write()

    def finish(self) -> None:
        """Record that the shard is scored."""
        self._state["finished"] = True
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        self._written = time.monotonic()
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(self._state))
            temporary.replace(self._path)
        except OSError as error:
            _logger.debug("no progress is shown: %s", error)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


class Progress(NamedTuple):
    """The progress of all shards together."""

    share: float  # of the night's shards, 0 to 1
    scored: int


def read(folder: Path) -> Progress:
    """The sum of a run's progress files."""
    states = []
    with contextlib.suppress(OSError):
        for path in folder.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):  # removed, or cut off by a full disk
                states.append(json.loads(path.read_text()))
    if not states:
        return Progress(0.0, 0)
    done = sum(s["share"] * (1.0 if s["finished"] else s["scored"] / max(1, s["pairs"])) for s in states)
    return Progress(min(1.0, done / states[0]["total"]), sum(int(s["scored"]) for s in states))


@contextmanager
def watch(folder: Path, show: Callable[[Progress], None]) -> Iterator[None]:
    """While the body runs, call `show` with the progress every half second."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(EVERY_SECONDS):
            with contextlib.suppress(OSError):  # a terminal that was closed
                show(read(folder))

    thread = threading.Thread(target=loop, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(OSError):
            show(read(folder))
