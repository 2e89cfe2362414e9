"""An output folder on any file system of pyarrow, and the Parquet files of it that were read last."""

from __future__ import annotations

import os
import stat
import threading
import urllib.parse
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from schemas.errors import ManifestError
from schemas.layout import check_inside
from schemas.manifest import FileInfo, footer

MAX_OPEN = 128
"""Parquet files kept open with their footers, the least recently used closed first: at most some 50 MB."""

_OF_URIS = ":/?&=%#@!$'()*+,;~"  # characters that may be meant as a URI's own

_TAIL = 64 * 1024  # bytes of a first reading, which most footers fit into

T = TypeVar("T")


class Files:
    """The files of one output folder; many threads may read at once.

    Args:
        output: a local path, gs://bucket/path or s3://bucket/path.
        filesystem: one of pyarrow's, with its own credentials or endpoint; `output` is then a path on it.
        max_open: Parquet files kept open.
    """

    def __init__(self, output: str, filesystem: fs.FileSystem | None = None, *, max_open: int = MAX_OPEN):
        self.output = output
        if filesystem is not None:
            self._fs, self._base = filesystem, output
        elif "://" in output:
            try:
                self._fs, self._base = fs.FileSystem.from_uri(urllib.parse.quote(output, safe=_OF_URIS))
            except pa.ArrowException as error:
                raise ManifestError(
                    f"cannot open {output}: {' '.join(str(error).split())}; give a local path, gs:// or s3://, or "
                    "filesystem="
                ) from None
        else:
            self._fs, self._base = fs.LocalFileSystem(), os.path.abspath(output)
        self._local = isinstance(self._fs, fs.LocalFileSystem)
        self._max_open, self._lock = max_open, threading.Lock()
        self._idle: OrderedDict[str, list[pq.ParquetFile]] = OrderedDict()
        self._open_files, self._checked = 0, set[str]()

    def name(self, path: str) -> str:
        """A path of the folder as messages show it."""
        return f"{self.output.rstrip('/')}/{path}"

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return bool(self._fs.get_file_info(self._full(path)).type != fs.FileType.NotFound)

    def folders(self, path: str) -> list[str]:
        """Sorted names of the folders in a folder; none if it does not exist."""
        selector = fs.FileSelector(self._full(path), allow_not_found=True)
        return sorted(info.base_name for info in self._fs.get_file_info(selector) if not info.is_file)

    def read_bytes(self, path: str) -> bytes:
        """The bytes of a small file.

        Raises:
            OSError: it cannot be read; FileNotFoundError: there is none.
            ManifestError: a link leads out of the output folder.
        """
        self._check(path)
        with self._fs.open_input_stream(self._full(path), compression=None) as stream:
            return bytes(stream.read())

    def with_parquet(
        self, path: str, info: FileInfo, schema: pa.Schema | None, use: Callable[..., T], *args: Any
    ) -> T:
        """What `use(file, *args)` returns for an open Parquet file, which no other thread uses meanwhile.

        Args:
            info: what the manifest says of the file.
            schema: columns and types that it must have; None: not known.

        Raises:
            FileNotFoundError: there is none.
            ManifestError: it is damaged.
        """
        try:
            file = self._take(path) or self._open(path, info, schema)
            result = use(file, *args)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, IndexError) as error:
            if isinstance(error, ManifestError):
                raise
            raise ManifestError(
                f"{self.name(path)} is damaged, or could not be read: {' '.join(str(error).split())[:300]}"
            ) from None
        self._give_back(path, file)
        return result

    def _open(self, path: str, info: FileInfo, schema: pa.Schema | None) -> pq.ParquetFile:
        self._check(path)
        source = self._fs.open_input_file(self._full(path))
        if source.size() != info.bytes:
            raise ManifestError(
                f"{self.name(path)} is not what its manifest says ({source.size():,} bytes instead of "
                f"{info.bytes:,}): the run was damaged after it was published"
            )
        tail = _checked_tail(source, info)
        file = pq.ParquetFile(
            source,
            # Parsed here it saves a request; on a local disk the second reading costs less than a second parser.
            metadata=None if self._local else pq.read_metadata(pa.BufferReader(tail)),
            pre_buffer=not self._local,  # joins requests, which on a local disk costs more than it saves
            page_checksum_verification=True,
        )
        if schema is not None and not file.schema_arrow.equals(schema, check_metadata=False):
            raise ValueError("its columns are not those of its table")
        return file

    def _take(self, path: str) -> pq.ParquetFile | None:
        with self._lock:
            if not (idle := self._idle.get(path)):
                return None
            self._open_files -= 1
            return idle.pop()

    def _give_back(self, path: str, file: pq.ParquetFile) -> None:
        with self._lock:
            self._idle.setdefault(path, []).append(file)
            self._idle.move_to_end(path)
            self._open_files += 1
            while self._open_files > self._max_open:
                _, closed = self._idle.popitem(last=False)
                self._open_files -= len(closed)

    def close(self) -> None:
        """Forget the files that are open and idle."""
        with self._lock:
            self._idle.clear()
            self._open_files = 0

    def _check(self, path: str) -> None:
        if not self._local:
            return
        folder = path.rpartition("/")[0]
        if folder not in self._checked:
            check_inside(self._base, folder)
            self._checked.add(folder)
        if not stat.S_ISREG(os.lstat(self._full(path)).st_mode):
            check_inside(self._base, path)

    def _full(self, path: str) -> str:
        return f"{self._base.rstrip('/')}/{path}"


def _checked_tail(source: pa.NativeFile, info: FileInfo) -> bytes:
    """The last bytes of a file, its whole footer among them.

    It is checked before it is parsed: Arrow takes a footer as it is, and a damaged one can end the process.
    """
    size = min(info.bytes, _TAIL)
    while True:
        data = footer(tail := source.read_at(size, info.bytes - size))
        length = 8 + int.from_bytes(tail[-8:-4], "little")
        if length <= size or size == info.bytes:
            break
        size = min(info.bytes, length)
    if info.footer_crc32 is not None and zlib.crc32(data) != info.footer_crc32:
        raise ValueError("its footer has another checksum than its manifest says")
    return bytes(tail)
