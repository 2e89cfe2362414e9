"""The lock of an output folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.storage import lock as lock_module
from pipelines.storage.filesystem import exists, read_bytes, write_bytes
from pipelines.storage.lock import Timing, lock
from pipelines.storage.lock_record import holder_of
from rerank_core import errors
from tests.support.object_store import MemoryFileSystem

OUTPUT = "mem://bucket/output"
LOCK = f"{OUTPUT}/_lock"


@pytest.fixture(autouse=True)
def _empty_store() -> Iterator[None]:
    MemoryFileSystem.objects.clear()
    yield
    MemoryFileSystem.objects.clear()
    MemoryFileSystem.before = None


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    output = str(tmp_path / "output")
    with lock(output, "first"):
        with (
            pytest.raises(errors.Locked, match=r"another run \(first, process \d+ on .+\) is writing to"),
            lock(output, "second"),
        ):
            pass
        assert "first" in (tmp_path / "output" / "_lock").read_text()  # the loser leaves the holder's name
    with lock(output, "third"):
        assert holder_of(str(tmp_path / "output" / "_lock")).startswith(f"third, process {os.getpid()} on ")
    assert (tmp_path / "output" / "_lock").read_text() == ""


@pytest.mark.parametrize("where", ["local", "object store"])
def test_a_lock_within_a_shared_one_is_the_same_one_and_names_the_inner_run(
    tmp_path: Path, where: str
) -> None:
    output = str(tmp_path) if where == "local" else OUTPUT
    with lock(output, "the night of today", shared=True, timing=hurried()) as outer:
        with lock(output, "20260308-abc", timing=hurried()) as inner:
            assert inner is outer
        outer.check()
        assert holder_of(outer.path).startswith("20260308-abc, ")
        # Another thread is another run.
        other: list[BaseException] = []

        def start() -> None:
            try:
                with lock(output, "other", timing=hurried(outer.beat)):
                    pass
            except BaseException as error:
                other.append(error)

        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        assert isinstance(other[0], errors.Locked)
    with lock(output, "next", timing=hurried()):
        pass


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_local_lock_that_was_stolen_is_noticed(tmp_path: Path, how: str) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(lock(str(tmp_path), "first"))
        first.check()
        (tmp_path / "_lock").unlink()
        if how == "replaced":
            threading.Thread(target=lambda: stack.enter_context(lock(str(tmp_path), "second"))).start()
            while "second" not in holder_of(str(tmp_path / "_lock")):
                pass
        with pytest.raises(errors.Locked, match="second" if how == "replaced" else "removed"):
            first.check()


@pytest.mark.parametrize("path", ["file/output", "file"])
def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(errors.OutputError, match="cannot write to output.path .*; choose another folder"),
        lock(str(tmp_path / path), "run"),
    ):
        pass


@pytest.mark.parametrize("kind", ["link", "dangling link", "second name", "folder", "pipe"])
def test_nothing_is_overwritten_through_the_lock(tmp_path: Path, kind: str) -> None:
    path, precious = tmp_path / "_lock", tmp_path / "precious"
    precious.write_text("precious")
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nosuch")
    elif kind == "second name":
        path.hardlink_to(precious)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(errors.OutputError, match="_lock is|cannot write"), lock(str(tmp_path), "run"):
        pass
    assert precious.read_text() == "precious"
    assert not (tmp_path / "nosuch").exists()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(errors.OutputError, match="cannot lock .*_lock: No locks available; choose"),
        lock(str(tmp_path), "run"),
    ):
        pass


def hurried(on_sleep: Callable[[], object] = lambda: None, **times: float) -> Timing:
    """Times of a lock whose process does not sleep, and whose own heartbeat does not come by itself."""
    return Timing(heartbeat=1e6, sleep=lambda seconds: on_sleep(), **times)  # type: ignore[arg-type]


def test_a_lock_in_an_object_store_is_given_back() -> None:
    with lock(OUTPUT, "first", timing=hurried()) as first:
        with pytest.raises(errors.Locked, match="another run \\(first, process .* is writing to mem://"):
            _start("second", hurried(first.beat))
        first.check()
    assert not exists(LOCK)


def test_a_lock_in_an_object_store_that_cannot_be_removed_is_left_to_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: str) -> None:
        raise OSError(f"{path}: no answer")

    warned: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(lock_module, "remove", refuse)
        patch.setattr(lock_module.logger, "warning", lambda text, *values: warned.append(text % values))
        with lock(OUTPUT, "first", timing=hurried()) as held:
            pass
        assert (exists(LOCK), held.path) == (True, LOCK)
    assert warned == [f"{LOCK} could not be removed ({LOCK}: no answer): it expires in 180 s"]
    with lock(OUTPUT, "second", timing=hurried()):
        assert "second" in holder_of(LOCK)


def _start(run: str, timing: Timing) -> None:
    """Take the lock in a process of its own, as far as the lock can tell, and give it back."""
    failed: list[BaseException] = []

    def start() -> None:
        try:
            with lock(OUTPUT, run, timing=timing) as held:
                held.check()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


@given(
    intervals=st.lists(st.floats(0.1, 100), min_size=1, max_size=30),
    jumps=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=5),
)
def test_a_clock_that_jumps_neither_takes_a_live_lock_nor_keeps_a_dead_one(
    intervals: list[float], jumps: list[float]
) -> None:
    """The holder beats at any intervals below the expiry; its wall clock, of which the file tells, jumps at will."""
    MemoryFileSystem.objects.clear()
    waited, due, beats = 0.0, 0.0, list(intervals)
    timing = Timing()

    def write(number: int) -> None:
        since = f"{jumps[number % len(jumps)]:.0f} s from now"
        write_bytes(LOCK, json.dumps({"run": "holder", "since": since, "heartbeat": number}).encode())

    def sleep(seconds: float) -> None:
        nonlocal waited, due
        waited += seconds
        if beats and waited >= due + beats[0]:
            due += beats.pop(0)
            write(len(beats))

    write(-1)
    alive = timing._replace(heartbeat=1e6, sleep=sleep)
    with pytest.raises(errors.Locked, match="holder"):
        _start("waiting", alive)
    waited, beats = 0.0, []
    _start("waiting", alive)  # nobody beats any more
    assert waited <= timing.expiry + timing.look + timing.settle
    assert not exists(LOCK)


def test_a_run_whose_lock_was_taken_notices_and_leaves_it_alone() -> None:
    with contextlib.ExitStack() as second, lock(OUTPUT, "first", timing=hurried()) as first:
        # The first is suspended, beats no more, and the second waits for long enough.
        thread = threading.Thread(
            target=lambda: second.enter_context(lock(OUTPUT, "second", timing=hurried()))
        )
        thread.start()
        thread.join()
        first.beat()
        assert "second" in holder_of(LOCK)
        with pytest.raises(errors.Locked, match="was taken by another run \\(second, "):
            first.check()
        del MemoryFileSystem.objects[LOCK]
        with pytest.raises(errors.Locked, match="removed"):
            first.check()


@pytest.mark.parametrize("starters", [2, 5])
def test_of_several_that_start_at_once_one_has_the_lock(starters: int) -> None:
    checked, written, done = (threading.Barrier(starters, timeout=600) for _ in range(3))
    began = threading.local()
    outcomes: list[str] = []

    def before() -> None:
        if not getattr(began, "done", False):
            began.done = True
            checked.wait()  # all have seen that there is no lock

    def start(name: str) -> None:
        try:
            with lock(OUTPUT, name, timing=hurried(written.wait)) as held:
                done.wait()
                held.check()
                outcomes.append("held")
        except errors.Locked as error:
            done.wait()
            outcomes.append(str(error))

    MemoryFileSystem.before = before
    threads = [threading.Thread(target=start, args=(f"run {n}",)) for n in range(starters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("held") == 1
    assert sum("at the same moment" in outcome for outcome in outcomes) == starters - 1


@pytest.mark.parametrize("data", [b"", b"20260307-x, process 1", b"[" * 10_000, b"\xff\x00", b"[1]", b"{}"])
def test_a_lock_of_another_version_or_damaged_is_one_that_nobody_holds(tmp_path: Path, data: bytes) -> None:
    write_bytes(LOCK, data)
    _start("next", hurried())
    (tmp_path / "_lock").write_bytes(data)
    with lock(str(tmp_path), "next"):
        assert b"next" in read_bytes(str(tmp_path / "_lock"))
