"""The time by which a night must be over: what is not computed by then is given up, so that the rest is published.

A stage stops at the *cut-off*, which is earlier by what is reserved for the steps that follow: writing, verifying and
publishing. Work that may take long (a search, a model) runs in a thread which is waited for until then and no longer,
even if it never returns.

Two clocks are read. The wall clock says when it is 06:00. The monotonic one says how much time has passed since this
process learned of the deadline: if the wall clock is set back, a night still takes no longer than it had when it began.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import datetime
import functools
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from rerank_core.errors import ConfigError, NightError

T = TypeVar("T")
Left = Callable[[], float]
"""Seconds that are left; 0 or less: time is up."""

BASE_SECONDS = 30.0
"""Reserved for what follows the stages, whatever the night's size: start and end of processes, report, cleaning up."""

SECONDS_PER_ROW = 0.00005
"""Reserved for copying or writing, verifying and publishing one candidate; they take 10 µs of one processor."""

POLL_SECONDS = 0.25
"""How often a waiting stage looks at the clock, which may have been set."""


def wall() -> float:
    """Seconds since 1970; tests replace it."""
    return time.time()


def monotonic() -> float:
    """Seconds that no one sets; tests replace it."""
    return time.monotonic()


class Deadline:
    """When the stages of a night stop. It travels to the workers, each of which starts its own monotonic clock.

    Args:
        finish_by: by when the night must be over; None: never.
        rows_per_shard: candidates of a shard, about; from it and the number of shards follows what is reserved.

    Raises:
        ConfigError: a time without a time zone.
    """

    def __init__(self, finish_by: datetime.datetime | None, *, rows_per_shard: int):
        if finish_by is not None and finish_by.tzinfo is None:
            raise ConfigError(
                f"finish_by = {finish_by.isoformat()} has no time zone; add one, such as +00:00"
            )
        self._end = finish_by.timestamp() if finish_by else math.inf
        self._rows = rows_per_shard
        self._started = wall(), monotonic()

    def left(self, shards: int) -> float:
        """Seconds until the cut-off of a night of so many shards; infinity without a deadline."""
        if math.isinf(self._end):
            return math.inf
        at, ticks = self._started
        left = min(self._end - wall(), self._end - at - (monotonic() - ticks))
        return left - BASE_SECONDS - SECONDS_PER_ROW * shards * self._rows

    def of(self, shards: int) -> Left:
        """`left` for one night's number of shards."""
        return functools.partial(self.left, shards)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _started=(wall(), monotonic()))


class TimeUp(Exception):
    """Ends work that was abandoned at the cut-off."""


def once(left: Left, work: Callable[[], T]) -> T | None:
    """The result of some work, which is not None; None if it did not end in time."""
    return next(until(left, (step() for step in (work,))), None)


def in_time(finish_by: datetime.datetime | None, work: Callable[[], T]) -> T:
    """The result of work without which there is no night: it is refused, or given up, if there is no time for it.

    Raises:
        NightError: there was no time.
        ConfigError: a time without a time zone.
    """
    result = once(Deadline(finish_by, rows_per_shard=0).of(0), work)
    if result is None:
        assert finish_by is not None
        raise NightError(
            f"there is no time until {finish_by.isoformat(timespec='minutes')} to rerank anything; start the night "
            "earlier, or set a later finish_by. The previous run stays in service"
        )
    return result


class _Ended(NamedTuple):
    """The last thing that a thread says."""

    error: BaseException | None


def until(left: Left, steps: Iterable[T]) -> Iterator[T]:
    """The results of the steps that end in time; a step is one `next` of the iterator.

    With a deadline the steps run in a thread of their own, and the step in flight is abandoned at the cut-off. What a
    step raises before then is raised here.
    """
    if math.isinf(left()):
        yield from steps
        return
    results: queue.SimpleQueue[T | _Ended] = queue.SimpleQueue()
    thread = threading.Thread(target=_run, args=(left, steps, results), name="until-cut-off", daemon=True)
    if left() > 0:
        thread.start()
    while True:
        remaining = left()
        try:
            result = results.get(remaining > 0, max(0.0, min(remaining, POLL_SECONDS)))
        except queue.Empty:
            if remaining > 0:
                continue
            _let_process_end()
            return
        if isinstance(result, _Ended):
            if result.error:
                raise result.error
            return
        yield result


def _run(left: Left, steps: Iterable[T], results: queue.SimpleQueue[T | _Ended]) -> None:
    error = None
    try:
        for result in steps:
            if left() <= 0:
                return
            results.put(result)
            if left() <= 0:
                return
    except BaseException as raised:  # a panic of a native library is no Exception
        error = raised
    finally:
        if left() > 0:
            results.put(_Ended(error))


@functools.cache
def _let_process_end() -> None:
    """From now on this process can end while an abandoned call is still inside a native library.

    Python does not wait for threads like ours, but for those of every ThreadPoolExecutor, such as a backend's. Threads
    that our threads or Beam's start are daemons too, and so are not needed.
    """
    with contextlib.suppress(AttributeError, RuntimeError):  # neither name is public
        register: Any = threading._register_atexit  # type: ignore[attr-defined]
        register(_forget_pools)


def _forget_pools() -> None:
    waited_for: Any = concurrent.futures.thread._threads_queues
    for thread in [thread for thread in waited_for if thread.daemon]:
        del waited_for[thread]
