"""Tiny nights in an object store, what a reader sees of them, and nights that are killed at a chosen write.

    python -m tests.support.store_nights FOLDER OUTPUT DAY KILLED-AT ...

FOLDER holds the inputs of `make_tiny`. One after the other, a process for each KILLED-AT begins the night and kills
itself with SIGKILL before it writes the first object whose path ends with it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nightrank import read
from pipelines.nightly import verify
from pipelines.nightly.checked import Checked
from pipelines.nightly.run import run
from pipelines.storage import clients, lock
from pipelines.storage.filesystem import is_local, listing, read_bytes
from rerank_core.config.night import parse_config
from schemas.manifest import Manifest
from tests.support.fakes import fake
from tests.support.servers.gcs import GcsServer
from tests.support.servers.s3 import S3Server
from tests.support.tiny import DAY, QUERIES

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


class Nights(NamedTuple):
    """Two nights of the same log, and what was seen of them."""

    output: str
    runs: tuple[Manifest, Manifest]
    files: tuple[dict[str, bytes], dict[str, bytes]]  # of the output folder after each
    requests: list[str]  # of the first night
    read_by_driver: set[str]  # tables of which workers had not reported files
    answers: list[tuple[str, int]]  # a reader's in the second night: run, and passages
    last: set[str]  # the runs of its answers afterwards


def two_nights(server: S3Server | GcsServer, folder: Path) -> Nights:
    """Both nights, the second while a reader polls; `folder` holds the inputs of `make_tiny`."""
    output, read_by_driver = f"{server.scheme}://nights/two/out put[1]", set[str]()
    check = verify.check

    def counted(folder: str, table: str, name: str) -> Checked:
        read_by_driver.add(table)
        return check(folder, table, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "check", counted)
        server.forget()
        first = night(folder, output)
        requests, files = server.requests, published(output)
        # One query is asked before the second night's window.
        asked = [query for query in QUERIES if "born" not in query]
        with read.open(
            output.partition("://")[2], follow=True, check_seconds=0, filesystem=server.filesystem()
        ) as reader:
            with polling(reader, asked) as answers:
                second = night(folder, output, NEXT)
            last = {reader.lookup(query).run_id for query in asked}
    found = (files, published(output))
    return Nights(output, (first, second), found, requests, read_by_driver, answers, last)


@contextlib.contextmanager
def polling(reader: read.Reader, asked: list[str]) -> Iterator[list[tuple[str, int]]]:
    """The answers of a reader that looks queries up all the time."""
    found: list[tuple[str, int]] = []
    stop, failed = threading.Event(), list[BaseException]()

    def poll() -> None:
        try:
            while not stop.is_set():
                answers = [reader.lookup(query) for query in asked]
                found.extend((answer.run_id, len(answer)) for answer in answers)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
    assert not failed


def die_at(end: str) -> None:
    """Let this process die before it writes an object whose path ends so."""
    for kind in (clients.S3Store, clients.GcsStore):
        real = kind.put

        def put(self: Any, path: str, data: bytes, real: Any = real) -> None:
            if path.endswith(end):
                os.kill(os.getpid(), signal.SIGKILL)
            real(self, path, data)

        kind.put = put  # type: ignore[method-assign]


def die_in_turn(folder: Path, output: str, day: datetime.date, ends: list[str]) -> None:
    """A process for each death, forked before there is any client, so that the imports are paid once."""
    for end in ends:
        process = os.fork()
        if process == 0:
            die_at(end)
            night(folder, output, day)
            os._exit(1)  # it did not die
        _, status = os.waitpid(process, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"the night that should die at {end} ended with status {status}")


if __name__ == "__main__":
    place, to, on, *killed_at = sys.argv[1:]
    assert not is_local(to)
    die_in_turn(Path(place), to, datetime.date.fromisoformat(on), killed_at)
