"""Run a tiny night whose model does not return from a call, in a process that must end all the same.

Whoever loads this module, which worker processes do, reads a clock that passes the deadline when that call has begun.
"""

from __future__ import annotations

import datetime
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipelines.nightly import deadline
from pipelines.nightly.run import run
from tests.support.fakes import FakeScorer
from tests.support.tiny import DAY, event, make_config, make_tiny, write_lines

FOLDER = "NIGHTRANK_TEST_BLOCKED"
ASKED = {"who wrote dune": 4, "solaris novel": 3, "seattle or tacoma": 2, "why does rain fall": 1}


def marks() -> Path:
    """Folder of the words that were met, a file each."""
    return Path(os.environ[FOLDER], "marks")


def wall() -> float:
    """The time, and a day later once the model is asked about rain."""
    return time.time() + 86400 * (marks() / "rain").exists()


if FOLDER in os.environ:
    deadline.wall = wall


class Blocked(FakeScorer):
    """Scores one query a call, in a pool of threads. The call about rain waits for the others, and then for ever."""

    chunk = 1

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1)

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return self._pool.submit(self._score, pairs).result()

    def _score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        for word in ("dune", "solaris", "seattle"):
            if all(word in query.lower() for query, _ in pairs):
                (marks() / word).touch()
        if any("rain" in query for query, _ in pairs):
            while len(list(marks().iterdir())) < 3:
                time.sleep(0.1)
            time.sleep(1)  # until the last call is waited for no more
            (marks() / "rain").touch()
            threading.Event().wait()
        return super().score(pairs)


def main(folder: Path, mode: str) -> None:
    """Print what became of the queries."""
    marks().mkdir()
    tiny = make_tiny(folder)
    log = write_lines(folder / "asked.jsonl", [event(q) for q, count in ASKED.items() for _ in range(count)])
    config = make_config(tiny, folder / "output", source={"log": str(log)}, evidence={"top_n": 0})
    flags = [] if mode == "in this process" else ["--direct_num_workers=2", f"--direct_running_mode={mode}"]
    finish_by = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    manifest = run(config, run_date=DAY, load=Blocked, beam_flags=flags, finish_by=finish_by)
    queries = manifest.balance.queries
    print(f"published {queries['published']}, not reached {manifest.rejected['FindLists/not_reached']}")


if __name__ == "__main__":
    from tests.support import blocked_night  # workers import the scorer by its name

    blocked_night.main(Path(sys.argv[1]), sys.argv[2])
