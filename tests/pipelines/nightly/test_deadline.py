"""The deadline: its clocks, and work that is abandoned."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipelines.nightly import deadline
from pipelines.nightly.deadline import BASE_SECONDS, Deadline, TimeUp, once, until
from rerank_core.errors import ConfigError, ScoringFailed
from tests.support import blocked_night
from tests.support.clock import CLOCK, END, FINISH_BY, Clock, stand_still


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stand_still(monkeypatch)


# --- the clocks


def seconds_left(limit: Deadline) -> float:
    return limit.left(0) + BASE_SECONDS


def test_without_a_deadline_there_is_always_time() -> None:
    assert Deadline(None, rows_per_shard=10).left(10**9) == math.inf


def test_what_follows_the_stages_is_reserved_by_the_number_of_queries() -> None:
    limit = Deadline(FINISH_BY, rows_per_shard=10)
    assert limit.left(0) == 1000 - BASE_SECONDS
    assert limit.left(5) - limit.left(10) == pytest.approx(50 * deadline.SECONDS_PER_ROW)


def test_time_passes_by_the_clock_that_is_ahead(clock: Clock) -> None:
    limit = Deadline(FINISH_BY, rows_per_shard=10)
    clock.pass_by(100)
    assert seconds_left(limit) == pytest.approx(900)
    clock.wall -= 3600  # set back: the night still takes no longer than it had
    assert seconds_left(limit) == pytest.approx(900)
    clock.wall += 2 * 3600  # set forward: 06:00 is past
    assert seconds_left(limit) < 0


def test_a_worker_starts_its_own_monotonic_clock(clock: Clock) -> None:
    sent = pickle.dumps(Deadline(FINISH_BY, rows_per_shard=10))
    clock.monotonic = 7e6  # on another machine
    limit = pickle.loads(sent)  # noqa: S301  our own
    clock.pass_by(400)
    assert seconds_left(limit) == pytest.approx(600)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"2026-03-09T06:00:00 has no time zone"):
        Deadline(FINISH_BY.replace(tzinfo=None), rows_per_shard=10)


# --- work that is abandoned


def left() -> float:
    return END - CLOCK.wall


def steps(seconds: Sequence[float]) -> Iterator[int]:
    for number, each in enumerate(seconds):
        CLOCK.pass_by(each)
        yield number


def test_steps_that_end_in_time_are_kept() -> None:
    assert list(until(left, steps([300, 300, 300, 300, 300]))) == [0, 1, 2]


def test_no_step_is_taken_when_time_is_up(clock: Clock) -> None:
    clock.pass_by(1000)
    begun = []
    assert once(left, lambda: begun.append(1) or 1) is None
    assert not begun


def test_without_a_deadline_nothing_runs_in_another_thread() -> None:
    assert once(lambda: math.inf, threading.get_ident) == threading.get_ident()
    assert once(left, threading.get_ident) != threading.get_ident()


def test_a_step_that_never_returns_is_abandoned(clock: Clock) -> None:
    entered = threading.Event()

    def blocks() -> Iterator[int]:
        yield 1
        entered.set()
        threading.Event().wait()
        yield 2

    found = until(left, blocks())
    assert next(found) == 1
    entered.wait()
    clock.pass_by(1000)
    assert list(found) == []


@pytest.mark.parametrize("error", [ScoringFailed("broken"), KeyboardInterrupt()])
def test_what_a_step_raises_is_raised_where_it_is_waited_for(error: BaseException) -> None:
    def fails() -> int:
        raise error

    with pytest.raises(type(error)):
        once(left, fails)


def test_what_a_step_raises_after_the_cut_off_is_nobodys_business() -> None:
    def late() -> int:
        CLOCK.pass_by(2000)
        raise TimeUp

    assert once(left, late) is None


@pytest.mark.parametrize("mode", ["in this process", "multi_processing"])
def test_a_process_ends_while_a_native_call_never_returns(mode: str, tmp_path: Path) -> None:
    """The call blocks in a thread of a pool, for which Python waits when a process ends."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, str(blocked_night.__file__), str(tmp_path), mode],
        env=os.environ | {"PYTHONPATH": str(root), blocked_night.FOLDER: str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,  # it would never end
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "published 3, not reached 1" in done.stdout
