"""What a stage of a night is: it takes shards, and has three outputs: shards, the records it rejected, and its tally.

Tallies are data, not Beam metrics: metrics count attempts, and a retried bundle would be counted twice.
"""

from __future__ import annotations

import abc
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from rerank_core.errors import user_error
from rerank_core.trace import span
from schemas.records import Rejected

T = TypeVar("T")

Tally = tuple[tuple[str, str], float]
"""((stage, key), amount): the key is in, out, rejected, seconds, or a count of this stage alone."""


class Handled(NamedTuple):
    """The result of a stage for one shard."""

    shard: Any
    rejected: list[Rejected]
    tally: Mapping[str, float]


class StageOutputs(NamedTuple):
    """The three outputs of a stage."""

    main: beam.PCollection
    rejected: beam.PCollection
    tallies: beam.PCollection


class _Handle(beam.DoFn):
    """Calls a stage's `handle` and emits its three outputs.

    A stage in the background works in a thread: while it is busy with a shard, the stages before it prepare the next
    one, and those after it go on with the one before. It has one shard at a time, so that memory stays bounded, and
    its outputs keep their order.
    """

    def __init__(self, stage: ShardStage):
        self._stage = stage

    def setup(self) -> None:
        with _as_user_errors(), span(f"open {self._stage.name}"):
            self._stage.open()

    def start_bundle(self) -> None:
        self._running: concurrent.futures.Future[Handled] | None = None

    def process(self, shard: Any) -> Iterator[Any]:
        if not self._stage.in_background:
            yield from self._outputs(self._handle(shard))
            return
        done = self._running.result() if self._running else None
        self._running = _in_thread(self._stage.name, lambda: self._handle(shard))
        if done:
            yield from self._outputs(done)

    def finish_bundle(self) -> Iterator[Any]:
        running, self._running = self._running, None
        if running:
            for output in self._outputs(running.result()):
                yield _windowed(output)

    def _handle(self, shard: Any) -> Handled:
        start = time.perf_counter()
        with _as_user_errors(), span(self._stage.name, shard=getattr(shard, "number", None)):
            handled = self._stage.handle(shard)
        seconds = time.perf_counter() - start
        tally = {**handled.tally, "rejected": len(handled.rejected), "seconds": seconds}
        return handled._replace(tally=tally)

    def _outputs(self, handled: Handled) -> Iterator[Any]:
        yield handled.shard
        for record in handled.rejected:
            yield pvalue.TaggedOutput("rejected", record)
        for what, amount in handled.tally.items():
            yield pvalue.TaggedOutput("tallies", ((self._stage.name, what), amount))


def _in_thread(name: str, work: Callable[[], T]) -> concurrent.futures.Future[T]:
    """The result of some work to come, from a thread that no process waits for at its end."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # a panic of a native library is no Exception
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _windowed(output: Any) -> Any:
    """An output of a bundle's end, for which Beam wants a time and a window; a night has one window and no times."""
    tag, value = (output.tag, output.value) if isinstance(output, pvalue.TaggedOutput) else ("", output)
    windowed = WindowedValue(value, GlobalWindow().max_timestamp(), [GlobalWindow()])
    return pvalue.TaggedOutput(tag, windowed) if tag else windowed


@contextlib.contextmanager
def _as_user_errors() -> Iterator[None]:
    """Raise what the machine did to a stage under our own classes, which every runner passes on.

    A native library's panic is no Exception: it would end a worker's thread in silence, and the night would hang.
    """
    try:
        yield
    except BaseException as error:
        known = user_error(error)
        if known is None or known is error:
            raise
        raise known from error


class ShardStage(beam.PTransform, abc.ABC):
    """A stage over shards; subclasses define `handle`, and `open` for what a worker loads once."""

    makes: Any = Any
    """The type of its shards."""

    in_background = False
    """Whether it waits for a model's engine, while the stages around it have other work to do."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def open(self) -> None:
        """Called once per worker, before the first shard."""

    @abc.abstractmethod
    def handle(self, shard: Any) -> Handled:
        """Process one shard; a retry must give the same result."""

    def expand(self, shards: beam.PCollection) -> StageOutputs:
        handle = beam.ParDo(_Handle(self)).with_output_types(self.makes)
        outputs = shards | handle.with_outputs("rejected", "tallies", main="main")
        return StageOutputs(outputs.main, outputs.rejected, outputs.tallies)
