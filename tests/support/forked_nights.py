"""Nights of the tiny corpus in processes of their own that start at once: each is forked from this one.

    python -m tests.support.forked_nights FOLDER

For every line of standard input, {"output": ..., "publish_back": {...}}, the night of DAY is run in a new process. Its
id is printed first, and then how it ended: 0, or -9 if it was killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines.plan.run import Outcome, run_plan
from pipelines.report import write  # what a step would import when it runs is there before the first fork
from rerank_core.config.night import Config
from tests.support.fakes import fake
from tests.support.tiny import DAY, Tiny, make_config

ROOT = Path(__file__).parents[2]
CHUNK = 2  # documents of a bulk request, so that a tiny night has several


def tiny_in(folder: Path) -> Tiny:
    """The tiny inputs that `make_tiny` wrote there."""
    return Tiny(folder, folder / "index", folder / "log.jsonl", folder / "good.jsonl")


def configured(folder: Path, output: str, publish_back: dict[str, Any]) -> Config:
    return make_config(tiny_in(folder), Path(output), publish_back=publish_back)


def run_night(config: Config, **options: Any) -> Outcome:
    return run_plan(config, run_date=DAY, load=fake(), **options)


class Nights:
    """The process from which nights are forked; leaving the context ends it."""

    def __init__(self, folder: Path) -> None:
        # The client of Elasticsearch may be one that the path names.
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked_nights", str(folder)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Nights:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)

    def start(self, output: Path, publish_back: dict[str, Any]) -> int:
        """Start a night, and return the id of its process."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"output": str(output), "publish_back": publish_back}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> int:
        """How the night ended that was started last: its exit code, or minus the signal that killed it."""
        return self._read()

    def _read(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())


def main(folder: Path) -> None:
    from pipelines.elasticsearch import write as elasticsearch

    elasticsearch.CHUNK_DOCUMENTS = CHUNK
    for line in sys.stdin:
        read, written = os.pipe()
        if (child := os.fork()) == 0:
            os.read(read, 1)  # not before its id was printed
            outcome = run_night(configured(folder, **json.loads(line)))
            for failure in outcome.failures:
                print(failure, file=sys.stderr)
            os._exit(1 if outcome.failures else 0)
        print(child, flush=True)
        os.write(written, b"1")
        _, status = os.waitpid(child, 0)
        for end in (read, written):
            os.close(end)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    assert write
    main(Path(sys.argv[1]))
