"""Tiny nights in an object store, beside the same ones in a local folder; killed at a chosen write, if told so.

    python -m tests.support.store_nights FOLDER OUTPUT DAY [KILLED-AT]

FOLDER holds the inputs of `make_tiny`. The process kills itself with SIGKILL before it writes the first object whose
path ends with KILLED-AT.
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pipelines.nightly.run import run
from pipelines.storage import clients, lock
from pipelines.storage.filesystem import is_local, listing, read_bytes
from rerank_core.config.night import parse_config
from schemas.manifest import Manifest
from tests.support.fakes import fake
from tests.support.tiny import DAY

NEXT = DAY + datetime.timedelta(days=1)


def night(folder: Path, output: str, day: datetime.date = DAY, **sections: Any) -> Manifest:
    """Publish a night of the tiny log; what it finds locked is of a process that was killed."""
    raw: dict[str, Any] = {
        "source": {"log": str(folder / "good.jsonl"), "index": str(folder / "index")},
        "output": {"path": output, "queries_per_shard": 2},
        "tags": {"recogniser": "rules"},
        "drift": {"enabled": False},
        **sections,
    }
    before, lock.TIMING = lock.TIMING, lock.Timing(sleep=lambda _: None)
    try:
        return run(parse_config(raw), run_date=day, load=fake())
    finally:
        lock.TIMING = before


def published(output: str) -> dict[str, bytes]:
    """Every file of an output folder but manifests, whose times differ, the history's and the lock."""
    names = listing(output)
    left_out = ("manifest.json", "_history.json", "_lock")
    return {name: read_bytes(f"{output}/{name}") for name in names if not name.endswith(left_out)}


def die_at(end: str) -> None:
    """Let this process die before it writes an object whose path ends so."""
    for kind in (clients.S3Store, clients.GcsStore):
        real = kind.put

        def put(self: Any, path: str, data: bytes, real: Any = real) -> None:
            if path.endswith(end):
                os.kill(os.getpid(), signal.SIGKILL)
            real(self, path, data)

        kind.put = put  # type: ignore[method-assign]


if __name__ == "__main__":
    place, to, on, *killed_at = sys.argv[1:]
    assert not is_local(to)
    for text in killed_at:
        die_at(text)
    night(Path(place), to, datetime.date.fromisoformat(on))
