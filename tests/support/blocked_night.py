"""Run a tiny night whose model never returns from its second call, in a process that must end all the same."""

from __future__ import annotations

import datetime
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipelines.nightly.deadline import BASE_SECONDS
from pipelines.nightly.run import run
from tests.support.fakes import FakeScorer
from tests.support.tiny import DAY, event, make_config, make_tiny, write_lines

SECONDS = 12.0
"""For everything before the cut-off: workers that start, and the call that is waited for."""


class Blocked(FakeScorer):
    """Scores one query a call, in a pool of threads, and for ever if the query is about rain."""

    chunk = 1

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1)

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return self._pool.submit(self._score, pairs).result()

    def _score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        if any("rain" in query for query, _ in pairs):
            threading.Event().wait()
        return super().score(pairs)


def main(folder: Path, mode: str) -> None:
    tiny = make_tiny(folder)
    asked = {"who wrote dune": 4, "solaris novel": 3, "seattle or tacoma": 2, "why does rain fall": 1}
    log = write_lines(folder / "asked.jsonl", [event(q) for q, count in asked.items() for _ in range(count)])
    config = make_config(tiny, folder / "output", source={"log": str(log)}, evidence={"top_n": 0})
    flags = [] if mode == "in this process" else ["--direct_num_workers=2", f"--direct_running_mode={mode}"]
    finish_by = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=BASE_SECONDS + SECONDS)
    manifest = run(config, run_date=DAY, load=Blocked, beam_flags=flags, finish_by=finish_by)
    queries = manifest.balance.queries
    print(f"published {queries['published']}, not reached {manifest.rejected['FindLists/not_reached']}")


if __name__ == "__main__":
    from tests.support import blocked_night  # workers import the scorer by its name

    blocked_night.main(Path(sys.argv[1]), sys.argv[2])
