"""Files, local or of any file system that Beam supports (gs://, s3://).

All that must be on disk before something else happens is flushed here; object stores do so by themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fnmatch
import hashlib
import os
import re
import shutil
import stat
import sys
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.storage.object_stores import answered, store_of
from pipelines.storage.parquet import open_parquet as open_parquet
from pipelines.storage.parquet import read_batches as read_batches
from pipelines.storage.parquet import read_table as read_table
from pipelines.storage.writer import ObjectWriter

Stamp = tuple[int, int | str]
"""Size in bytes and, of a local file, when it was changed (ns): links and copies of a file have the same.

With versions, an object's has the one that the store gave it, by which two of one size differ; copies have others."""


def join(*parts: str) -> str:
    """Join the parts of a path in the way of its file system."""
    if is_local(parts[0]):
        return os.path.join(*parts)
    return "/".join([parts[0].rstrip("/"), *(part.strip("/") for part in parts[1:])])


def is_local(path: str) -> bool:
    """Whether the path is on this machine's file system."""
    return "://" not in path


def exists(path: str) -> bool:
    """Whether there is such a file."""
    if is_local(path):
        return os.path.exists(path)
    try:
        with answered(path):
            return store_of(path).size(path) >= 0
    except FileNotFoundError:
        return False


def write_bytes(path: str, data: bytes, *, durable: bool = False) -> None:
    """Write a file atomically: under a temporary name first, then a rename; an object of a store in one step.

    If the process is killed in between, Arrow and Spark skip the temporary file: its name begins with "_".

    Args:
        durable: a local file is flushed to disk before it is renamed, and its name afterwards.

    Raises:
        OSError: it cannot be written.
    """
    if not is_local(path):
        with answered(path):
            store_of(path).put(path, data)
        return
    folder, slash, name = path.rpartition("/")
    temporary = f"{folder}{slash}_{name}.tmp-{uuid.uuid4().hex}"
    make_folder(folder or ".")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:  # such as a full disk, which this file need not keep full
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        flush_names(folder or ".")


def is_temporary(path: str) -> bool:
    """Whether a file of this path was left by a `write_bytes` that was killed."""
    name = path.rpartition("/")[2]
    return name.startswith("_") and ".tmp-" in name


def read_bytes(path: str) -> bytes:
    """The bytes of a file."""
    if is_local(path):
        with open(path, "rb") as file:
            return file.read()
    with answered(path):
        return store_of(path).get(path).data


def read_if_any(path: str) -> bytes | None:
    """The bytes of a file; None if there is none.

    Raises:
        OSError: there is one, and it cannot be read.
    """
    try:
        return read_bytes(path)
    except OSError:
        # Read again, as it may have been written in this moment.
        return read_bytes(path) if exists(path) else None


def sha256(path: str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def open_binary(path: str) -> BinaryIO:
    """Open a file as it is, compressed or not."""
    with answered(path):
        file: BinaryIO = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        return file


def make_folder(path: str) -> None:
    """Create a folder and its parents, unless they exist; an object store has none."""
    if is_local(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def files(folder: str, pattern: str = "*") -> list[str]:
    """Sorted paths of the files of a folder that match, "*" being no "/"; none if there is no such folder.

    Args:
        pattern: of shells, with "*", "?" and "[...]".
    """
    if is_local(folder):  # Beam would read "[" or "*" in the folder's name as a pattern
        return sorted(map(str, _glob(folder, pattern)))
    start = join(folder, re.split(r"[*?[]", pattern, maxsplit=1)[0])
    parts = pattern.split("/")
    with answered(folder):
        found = store_of(folder).list(start)
    below = len(folder.rstrip("/")) + 1
    return sorted(path for path in found if _matches(path[below:].split("/"), parts))


def _matches(names: list[str], patterns: list[str]) -> bool:
    return len(names) == len(patterns) and all(map(fnmatch.fnmatchcase, names, patterns))


def _glob(folder: str, pattern: str) -> list[Path]:
    """Paths of a local folder that match, listed again if a folder goes meanwhile: `Path.glob` fails then."""
    for _ in range(9):
        with contextlib.suppress(FileNotFoundError):
            return list(Path(folder).glob(pattern))
    return list(Path(folder).glob(pattern))


def listing(folder: str, *, versions: bool = False) -> dict[str, Stamp]:
    """Every file below a folder, by its path relative to it; none if there is no such folder. No link is followed.

    Args:
        folder: local or in an object store.
        versions: stamps of objects have the versions of the store, too.

    Raises:
        OSError: a folder cannot be listed: it is not the same as an empty one.
    """
    if not is_local(folder):
        with answered(folder):
            listed = store_of(folder).list(f"{folder.rstrip('/')}/")
        below = len(folder.rstrip("/")) + 1
        return {
            path[below:]: (one.size, one.version if versions else 0)
            for path, one in listed.items()
            if not path.endswith("/")
        }
    found: dict[str, Stamp] = {}
    above = len(os.path.join(folder, ""))
    for path, _, names in os.walk(folder, onerror=_unless_missing):
        for name in names:  # without pathlib: a year of nights has some hundred thousand files
            with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                state = os.lstat(os.path.join(path, name))
                found[os.path.join(path[above:], name)] = (state.st_size, state.st_mtime_ns)
    return found


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def folders(folder: str, listed: Iterable[str], *, depth: int) -> list[str]:
    """Sorted folders that many levels below a folder, as paths relative to it.

    Args:
        listed: the `listing` of the folder, which in an object store is all there is.
    """
    if is_local(folder):
        found = (path for path in _glob(folder, "/".join("*" * depth)) if path.is_dir())
        return sorted(path.relative_to(folder).as_posix() for path in found)
    return sorted({"/".join(path.split("/")[:depth]) for path in listed if path.count("/") >= depth})


def remove(path: str) -> None:
    """Remove a file or a whole folder, if it exists; of a link, the link."""
    if is_local(path):
        local = Path(path)
        if local.is_dir() and not local.is_symlink():
            shutil.rmtree(local)
        else:
            local.unlink(missing_ok=True)
    else:  # what is below it, and an object of this name
        with answered(path):
            store_of(path).delete([*(join(path, name) for name in listing(path)), path.rstrip("/")])


def remove_files(folder: str, names: Iterable[str]) -> None:
    """Remove objects of a folder of an object store."""
    if paths := [join(folder, name) for name in sorted(names)]:
        with answered(folder):
            store_of(folder).delete(paths)


def flush(folder: str) -> None:
    """Wait until a local folder with everything in it is on disk.

    In many threads: the system then writes the files together, and 1,500 take 0.3 s instead of 8.
    """
    walked = os.walk(folder, onerror=_unless_missing)
    paths = [os.path.join(parent, name) for parent, _, names in walked for name in (*names, "")]
    with ThreadPoolExecutor(32) as threads:
        for _ in threads.map(_fsync, paths):
            pass


def flush_names(folder: str) -> None:
    """Wait until the names in a local folder are on disk, but not what is in the files."""
    _fsync(folder)


def _fsync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems do not flush folders, and need not: they write names at once.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def put_folder(source: str, target: str) -> None:
    """Move a local folder to its place, and what was there, if anything, to `source`.

    On Linux readers see the one or the other at every moment; elsewhere there is an instant in which there is neither.
    """
    make_folder(str(Path(target).parent))
    if not os.path.lexists(target):
        os.rename(source, target)
    elif not _exchange(source, target):
        aside = f"{source}.replaced"
        os.rename(target, aside)
        os.rename(source, target)
        os.rename(aside, source)
    flush_names(str(Path(target).parent))


def _exchange(one: str, other: str) -> bool:
    """Swap two folders in one step; False where the system cannot."""
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    sys.audit("os.rename", one, other, -1, -1)  # as os.rename does
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


def copy_files(source: str, target: str, names: Iterable[str]) -> None:
    """Copy files to another folder; on a local file system they are links to the same bytes, where it has links."""
    make_folder(target)
    pairs = [(join(source, name), join(target, name)) for name in names]
    if not is_local(target):
        _copy_objects(pairs)
        return
    for one, other in pairs:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)


def transfer(source: str, target: str) -> None:
    """Copy the bytes of one file, from any file system to any other, a few MB at a time."""
    with open_binary(source) as reader, answered(target), create(target) as writer:
        while data := _read_some(source, reader):
            writer.write(data)


def _read_some(path: str, reader: BinaryIO) -> bytes:
    with answered(path):
        return reader.read(1 << 22)


def create(path: str) -> BinaryIO:
    """Open a file to write it, its folder made; what an exception leaves of it may be a part."""
    if is_local(path):
        make_folder(os.path.dirname(path) or ".")
        return open(path, "wb")
    return ObjectWriter(path)  # type: ignore[return-value]  # as files that are opened are


def move_files(source: str, target: str, names: Iterable[str]) -> None:
    """Move files of an object store."""
    move_objects([(join(source, name), join(target, name)) for name in names])


def move_objects(pairs: list[tuple[str, str]]) -> None:
    """Move objects of one store: (from, to) of each."""
    _copy_objects(pairs)
    if pairs:
        with answered(pairs[0][0]):
            store_of(pairs[0][0]).delete([one for one, _ in pairs])


def _copy_objects(pairs: list[tuple[str, str]]) -> None:
    def copy(pair: tuple[str, str]) -> None:
        with answered(pair[0]):
            store_of(pair[0]).copy(*pair)

    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(copy, pairs):
            pass
