"""The lock of an output folder: one run writes at a time."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import TextIO

from pipelines.storage.filesystem import exists, is_local, join, make_folder, read_bytes, remove, write_bytes
from rerank_core.errors import Locked, OutputError


@contextlib.contextmanager
def lock(output: str, run_id: str) -> Iterator[None]:
    """Lock the output folder for one run.

    On a local folder the lock is the operating system's, and ends with the process. An object store has none: there a
    lock file names the run that writes, and must be removed by hand after a run was killed.

    Raises:
        Locked: another run is writing to it.
        OutputError: the folder cannot be written.
    """
    path = join(output, "_lock")
    with _local_lock(output, path, run_id) if is_local(output) else _remote_lock(path, run_id):
        yield


@contextlib.contextmanager
def _local_lock(output: str, path: str, run_id: str) -> Iterator[None]:
    import fcntl  # not on Windows, where this job does not run

    try:
        make_folder(output)
        file = _open_lock(path)
    except OSError as error:
        raise OutputError(
            f"cannot write to output.path {output}: {error.strerror}; choose another folder"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(200).strip() or "unknown"
            raise Locked(
                f"another run ({holder}) is writing to {output}; wait for it or use another folder"
            ) from None
        except OSError as error:  # such as of a network file system without locks
            raise OutputError(
                f"cannot lock {path}: {error.strerror}; choose an output.path on a file system that has locks"
            ) from None
        file.truncate(0)
        file.write(f"{run_id}, process {os.getpid()}")
        file.flush()
        yield


def _open_lock(path: str) -> TextIO:
    """Open the lock file: a plain file of this name alone, since it is going to be overwritten."""
    if os.path.islink(path):
        raise OutputError(f"{path} is a link; remove it")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        os.close(descriptor)
        raise OutputError(f"{path} is not a plain file, or has a second name; remove it")
    return os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")


@contextlib.contextmanager
def _remote_lock(path: str, run_id: str) -> Iterator[None]:
    if exists(path):
        holder = read_bytes(path).decode("utf-8", "replace")
        raise Locked(
            f"another run ({holder}) is writing here, or was killed; if none is running, remove {path}"
        )
    write_bytes(path, run_id.encode("utf-8"))
    if read_bytes(path).decode("utf-8") != run_id:
        raise Locked(f"another run took {path} at the same moment; start this one again later")
    try:
        yield
    finally:
        remove(path)
