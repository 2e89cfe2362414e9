"""The lock of an output folder: one run writes at a time, and the lock's file `_lock` names it.

On a local folder the lock is the operating system's (flock) and ends with the process. An object store has none: there
the holder changes the file every few seconds, and a file that another process has not seen change for minutes is of a
run that was killed. Only the waiting process's own sleeps are counted: no two clocks are compared, and none is read, so
a clock that jumps neither takes a lock away nor keeps one. Where the store can, each write is made only over the
version that was seen: of several processes that take a lock, or take it from the dead, one has it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

from pipelines.storage.clients import Found
from pipelines.storage.filesystem import is_local, join, make_folder, remove
from pipelines.storage.lock_record import holder_of, read_object, token_of
from pipelines.storage.object_stores import answered, store_of
from rerank_core.errors import Locked, OutputError, output_error

logger = logging.getLogger(__name__)


class Timing(NamedTuple):
    """The times of a lock in an object store, in seconds."""

    heartbeat: float = 15.0  # from one change of the file by its holder to the next
    look: float = 5.0  # from one look of a waiting process to the next
    expiry: float = 180.0  # a lock whose file has not changed for so long is taken
    settle: float = (
        2.0  # from writing the file to reading it back: longer than a write that another began takes
    )
    sleep: Callable[[float], None] = time.sleep


TIMING = Timing()


class Lock:
    """A lock that is held: `check` before anything that readers see."""

    def __init__(self, output: str, run: str, *, descriptor: int | None) -> None:
        self.path = join(output, "_lock")
        self._output, self._descriptor = output, descriptor
        self._token = uuid.uuid4().hex
        self._store = None if is_local(output) else store_of(output)
        self._version: str | None = None  # of the lock's object, as it was last seen; None: there is none
        self._record: dict[str, Any] = {
            "run": run,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),  # for people
            "token": self._token,
            "heartbeat": 0,
        }
        self._writing = threading.Lock()

    def name(self, run: str) -> None:
        """Name the run that is written, once its id is known."""
        with self._writing:
            self._record["run"] = run
        self.beat()

    def check(self) -> None:
        """Make sure that the lock is still held.

        Raises:
            Locked: another run has taken it, or its file was removed; this one may not go on.
        """
        with self._writing:
            held = self._is_held()
        if not held:
            raise Locked(
                f"{self.path} was taken by another run ({holder_of(self.path)}) or removed while this one was writing; "
                "nothing more is published by this one; start it again once no other is running"
            )

    def beat(self) -> None:
        """Write the lock's file, with a heartbeat that differs from the last one, if the lock is still held."""
        with self._writing:
            if self._is_held():
                self._record["heartbeat"] += 1
                self._write()

    def _write(self) -> None:
        data = (json.dumps(self._record) + "\n").encode()
        if self._descriptor is None:
            self._write_object(data)
            return
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))

    def _write_object(self, data: bytes) -> None:
        assert self._store is not None
        with answered(self.path):
            if self._store.conditional:
                # Without effect if another was first; then the next look finds its record.
                self._version = self._store.put_over(self.path, data, self._version) or self._version
            else:
                self._store.put(self.path, data)

    def _is_held(self) -> bool:
        if self._store is not None:
            found = read_object(self.path)
            if found is None or token_of(found.data) != self._token:
                return False
            self._version = found.version
            return True
        assert self._descriptor is not None
        try:  # the file that is locked may no longer be the one of this name
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _take(self, seen: Found | None, timing: Timing) -> None:
        """Take a lock in an object store that is free, or whose holder was killed.

        Where the store has no conditions and several processes write at once, the last one has it. It is the only one
        if no write takes longer than `settle`; if one does, the process that loses its record notices at its next
        `check`.
        """
        assert self._store is not None
        self._version = seen.version if seen else None
        self._write()
        if not self._store.conditional:
            timing.sleep(timing.settle)
        if not self._is_held():
            raise Locked(
                f"another run ({holder_of(self.path)}) took {self.path} at the same moment; start this one later"
            )

    def _give_back(self) -> None:
        with self._writing:
            if self._descriptor is not None:
                os.ftruncate(self._descriptor, 0)
            elif self._is_held():
                remove(self.path)
            self._token = ""  # a heartbeat that is late may not write any more


_held: ContextVar[tuple[Lock, ...]] = ContextVar("held", default=())
"""Locks that the code around this holds and shares with what it calls."""


@contextlib.contextmanager
def lock(output: str, run: str, *, shared: bool = False, timing: Timing | None = None) -> Iterator[Lock]:
    """Lock the output folder for one run.

    Args:
        output: the folder, local or in an object store.
        run: what users know this run by.
        shared: what is called within it, in this thread, may lock the folder again: it gets this same lock, which from
            then on names the inner run.
        timing: of a lock in an object store; TIMING by default.

    Raises:
        Locked: another run is writing to it.
        OutputError: the folder cannot be written.
    """
    path = join(output, "_lock")
    for outer in _held.get():
        if outer.path == path:
            outer.check()
            outer.name(run)
            yield outer
            return
    own = _local_lock(output, run) if is_local(output) else _remote_lock(output, run, timing or TIMING)
    with own as held:
        if not shared:
            yield held
            return
        before = _held.set((*_held.get(), held))
        try:
            yield held
        finally:
            _held.reset(before)


@contextlib.contextmanager
def _local_lock(output: str, run: str) -> Iterator[Lock]:
    path = join(output, "_lock")
    try:
        make_folder(output)
        descriptor = _open_lock(path)
    except OSError as error:
        raise output_error(
            error, f"cannot write to output.path {output}: {error.strerror}; choose another folder"
        ) from None
    try:
        _flock(descriptor, output)
        held = Lock(output, run, descriptor=descriptor)
        held.check()  # it may have been removed between opening and locking
        held.beat()
        try:
            yield held
        finally:
            held._give_back()
    finally:
        os.close(descriptor)


def _flock(descriptor: int, output: str) -> None:
    import fcntl  # not on Windows, where this job does not run

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _locked(output, holder_of(join(output, "_lock"))) from None
    except OSError as error:  # such as of a network file system without locks
        raise output_error(
            error,
            f"cannot lock {join(output, '_lock')}: {error.strerror}; choose an output.path on a file system that has "
            "locks",
        ) from None


def _open_lock(path: str) -> int:
    """Open the lock file: a plain file of this name alone, since it is going to be overwritten."""
    if os.path.islink(path):
        raise OutputError(f"{path} is a link; remove it")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        os.close(descriptor)
        raise OutputError(f"{path} is not a plain file, or has a second name; remove it")
    return descriptor


@contextlib.contextmanager
def _remote_lock(output: str, run: str, timing: Timing) -> Iterator[Lock]:
    held = Lock(output, run, descriptor=None)
    held._take(_wait_for_the_dead(held.path, output, timing), timing)
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(timing.heartbeat):
            with contextlib.suppress(OSError):  # the next one may succeed, long before the lock expires
                held.beat()

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield held
    finally:
        stopped.set()
        try:
            held._give_back()
        except OSError as error:  # no reason to fail what was done under the lock
            logger.warning(
                "%s could not be removed (%s): it expires in %g s", held.path, error, timing.expiry
            )


def _wait_for_the_dead(path: str, output: str, timing: Timing) -> Found | None:
    """Return once there is no lock, or one whose holder was killed: what it left.

    Raises:
        Locked: its holder lives.
    """
    first = read_object(path)
    if first is None:
        return None
    logger.info("%s names %s: watching whether it still runs", path, holder_of(path))
    for _ in range(math.ceil(timing.expiry / timing.look)):
        timing.sleep(timing.look)
        seen = read_object(path)
        if seen is None:
            return None
        if seen != first:
            raise _locked(output, holder_of(path))
    logger.info("%s did not change for %g s: its run was killed, and this one goes on", path, timing.expiry)
    return first


def _locked(output: str, holder: str) -> Locked:
    return Locked(f"another run ({holder}) is writing to {output}; wait for it or use another folder")
