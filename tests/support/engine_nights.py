"""Nights on an engine: compared with that of one machine, and with a process that is killed while a model scores.

`held_load` makes any scorer one that stops within its first call until it may go on: that is where its worker, or the
process that started it, can be killed. The benchmark and the test of Flink share it; workers import it by name.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow.parquet as pq

from pipelines.nightly.models import Loader
from rerank_core.scoring.protocol import Scorer
from schemas.manifest import Manifest
from tests.support.servers.flink import Cluster
from tests.support.tiny import published_bytes

if TYPE_CHECKING:
    from tests.conftest import Night

T = TypeVar("T")
WAIT_SECONDS = 600.0


def check_same(output: Path, manifest: Manifest, night: Night) -> None:
    """The run is that of the fixture `night`, byte for byte; of files that differ, the rows are shown."""
    assert manifest.run_id == night.manifest.run_id
    assert manifest.balance == night.manifest.balance
    found, expected = published_bytes(output, manifest), published_bytes(night.output, night.manifest)
    assert found.keys() == expected.keys()
    for name in (name for name in expected if found[name] != expected[name]):
        rows = [pq.read_table(io.BytesIO(data)).to_pylist() for data in (found[name], expected[name])]
        assert rows[0] == rows[1], name
    assert found == expected


class Gate(NamedTuple):
    """A folder in which workers leave marks, and a file that lets them go on."""

    folder: Path
    driver: int  # the process that prepares the night, which loads the model, too, and is not held

    @classmethod
    def make(cls, folder: Path) -> Gate:
        folder.mkdir(parents=True)
        return cls(folder, os.getpid())

    def workers(self) -> list[int]:
        """Processes that have come to a call of their model."""
        return [int(path.name) for path in self.folder.glob("[0-9]*")]

    def open(self) -> None:
        """Let every worker go on, now and later."""
        (self.folder / "open").touch()

    def pass_(self) -> None:
        """Leave a mark of this process, and wait until it may go on."""
        (self.folder / str(os.getpid())).touch()
        wait(lambda: (self.folder / "open").exists())


def held_load(load: Loader, gate: Gate) -> Scorer:
    """The scorer that `load` makes; in a worker, its calls return only when the gate is open."""
    scorer: Any = load()
    if os.getpid() != gate.driver:
        score = scorer.score

        def held(pairs: Sequence[tuple[str, str]], *rest: Any, **options: Any) -> np.ndarray:
            logits: np.ndarray = score(pairs, *rest, **options)
            gate.pass_()
            return logits

        scorer.score = held
    made: Scorer = scorer
    return made


def with_a_kill(
    cluster: Cluster,
    night: Callable[[], T],
    *,
    when: Callable[[], Sequence[int]],
    then: Callable[[], None] = lambda: None,
) -> tuple[T, bool]:
    """What a night returns although a TaskManager is killed -9 and replaced, and whether its Python worker ended, too.

    Args:
        night: runs it.
        when: workers of which one is to lose its TaskManager; none until it is time.
        then: called once that is done.
    """
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(night)
        try:
            wait(lambda: running.done() or bool(when()))
            reaped = not running.done() and _kill(cluster, when()[0])
        finally:
            then()
        return running.result(), reaped


def _kill(cluster: Cluster, worker: int) -> bool:
    number = cluster.kill_task_manager_of(worker)
    wait(lambda: worker not in cluster.workers())
    cluster.start_task_manager(number)
    return True


def wait(condition: Callable[[], bool], *, seconds: float = WAIT_SECONDS) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: it was not in time.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited for {seconds:.0f} s")
        time.sleep(0.05)
