"""A log and an index at addresses of an object store, as files of this machine, since what reads them needs paths."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.sources.local.bm25_index import METADATA
from pipelines.storage import filesystem
from pipelines.storage.object_stores import StoreError
from rerank_core.errors import SourceError, SourceUnavailable
from rerank_core.scoring.tuning import default_path
from rerank_core.text import fingerprint

KEEP_SECONDS = 86_400.0
"""How long an index that was fetched stays after another one of the same address was."""

_fetching = threading.Lock()  # the threads of a process


def addresses(path: str, endings: tuple[str, ...]) -> list[str]:
    """Files of a log in an object store, sorted: a file, those of a glob, or those of a folder with these endings."""
    folder, _, pattern = path.rpartition("/")
    # First as a name, which may have the characters of a glob.
    for wanted in (glob.escape(pattern), pattern) if pattern else ():
        if found := filesystem.files(folder, wanted):
            return found
    below = filesystem.files(path.rstrip("/"))
    return [
        one for one in below if one.endswith(endings) and one.rpartition("/")[2][:1] not in ("", ".", "_")
    ]


class Pin(NamedTuple):
    """What a file held when the night began."""

    size: int  # bytes
    modified: int  # ns
    digest: str  # SHA-256, in hexadecimal


def pin(path: Path) -> Pin:
    """What a file of this machine holds."""
    stat = path.stat()
    return Pin(stat.st_size, stat.st_mtime_ns, _sha256(path, stat.st_size))


def _sha256(path: Path, size: int) -> str:
    """SHA-256 of the first `size` bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while size > 0 and (data := content.read(min(size, 1 << 20))):
            digest.update(data)
            size -= len(data)
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _begins_as(path: Path, pinned: Pin, inode: int) -> bool:
    """Whether a file has the pinned bytes first. Kept by inode: a log that grows is read in spans, and hashed once."""
    return _sha256(path, pinned.size) == pinned.digest


def _gone(name: str) -> SourceError:
    return SourceError(f"the log {name} is not there any more; keep a log until its night is published")


def _check(name: str, path: Path, pinned: Pin) -> None:
    """Make sure that a file holds what it did when the night began, and at most more after it, as a log does.

    Raises:
        SourceError: there is no such file any more.
        SourceUnavailable: it was replaced.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise _gone(name) from None
    if (stat.st_size, stat.st_mtime_ns) == (pinned.size, pinned.modified):
        return
    if stat.st_size < pinned.size or not _begins_as(path, pinned, stat.st_ino):
        raise SourceUnavailable(
            f"the log {name} was replaced during the run, so its queries are not those of the fingerprint; run "
            "the night again, and write new logs under other names"
        )


@contextlib.contextmanager
def copies(paths: Sequence[str], *, pinned: Mapping[str, Pin] | None = None) -> Iterator[list[Path]]:
    """Files on this machine: a local one itself, of another one a copy of the same name that is removed afterwards.

    Args:
        paths: of the files.
        pinned: what the files held when the night began, by path.

    Raises:
        SourceError: there is no such file.
        SourceUnavailable: a file cannot be fetched, or was replaced since the night began.
    """
    if all(map(filesystem.is_local, paths)):
        found = list(map(Path, paths))
        _check_all(paths, found, pinned)
        yield found
        _check_all(paths, found, pinned)
        return
    with tempfile.TemporaryDirectory(prefix="nightrank-log-") as folder:
        found = []
        for number, path in enumerate(paths):
            found.append(Path(folder, str(number), path.rpartition("/")[2]))
            try:
                filesystem.transfer(path, str(found[-1]))
            except FileNotFoundError:
                raise _gone(path) from None
            except OSError as error:
                raise SourceUnavailable(
                    f"cannot fetch {path} to {folder} ({error}); set TMPDIR if it is full"
                ) from None
        _check_all(paths, found, pinned)
        yield found


def _check_all(names: Sequence[str], paths: Sequence[Path], pinned: Mapping[str, Pin] | None) -> None:
    if pinned is not None:
        for name, path in zip(names, paths, strict=True):
            _check(name, path, pinned[name])


def index_folder(path: str) -> Path:
    """The folder of an index on this machine; one of an object store is fetched into the user's cache folder, once.

    Raises:
        SourceError: there is no index at the address.
        SourceUnavailable: the store does not answer, the index was replaced meanwhile, or it cannot be written here.
    """
    if filesystem.is_local(path):
        return Path(path)
    try:
        metadata = filesystem.read_bytes(filesystem.join(path, METADATA))
    except StoreError as error:
        raise SourceUnavailable(f"cannot read the index {path}: {error.strerror}") from None
    except OSError:
        raise SourceError(
            f"no index at {path}: it has no {METADATA}; build one with nightrank index CORPUS --to FOLDER, and copy "
            "the folder there"
        ) from None
    cache = default_path().parent / "indices" / fingerprint(path)[:12]
    target = cache / hashlib.sha256(metadata).hexdigest()[:16]
    if target.is_dir():
        return target
    try:
        with _one_at_a_time(cache):
            if not target.is_dir():
                _fetch(path, metadata, target)
                _tidy(target)
    except OSError as error:
        raise SourceUnavailable(
            f"cannot fetch the index {path} to {cache} ({error.strerror or error}); set XDG_CACHE_HOME to a "
            "folder that can be written and has space"
        ) from None
    return target


@contextlib.contextmanager
def _one_at_a_time(cache: Path) -> Iterator[None]:
    """One thread of one process of this machine at a time: the workers of a machine start together."""
    import fcntl  # not on Windows, where this job does not run

    cache.mkdir(parents=True, exist_ok=True)
    with _fetching, cache.with_suffix(".lock").open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks: each process fetches for itself
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(path: str, metadata: bytes, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="_fetching-", dir=target.parent) as folder:
        whole = Path(folder, "index")
        for name, (size, _) in filesystem.listing(path).items():
            copy = whole / name
            if not copy.resolve().is_relative_to(whole.resolve()):
                raise SourceError(
                    f"the index {path} has a file {name!r:.80} outside of its folder; do not use it"
                )
            filesystem.transfer(filesystem.join(path, name), str(copy))
            if copy.stat().st_size != size:
                raise SourceUnavailable(_replaced(path))
        if (whole / METADATA).read_bytes() != metadata:
            raise SourceUnavailable(_replaced(path))
        try:
            os.rename(whole, target)
        except OSError:  # another process was faster
            if not target.is_dir():
                raise


def _replaced(path: str) -> str:
    return f"the index {path} was replaced while it was fetched; run the night again, and put new indices elsewhere"


def _tidy(target: Path) -> None:
    """Remove earlier indices of the same address, but for those that a night which still runs may open."""
    for other in target.parent.iterdir():
        with contextlib.suppress(OSError):
            if other != target and time.time() - other.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(other)
