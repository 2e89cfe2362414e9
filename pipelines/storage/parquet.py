"""Parquet files, local or in an object store, of which only the footer and the wanted columns are read.

Arrow reads in the calling thread alone: its reading threads, with a file of Python's, can crash the interpreter when it
exits.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage.clients import Store
from pipelines.storage.object_stores import StoreError, answered, store_of, unreadable
from schemas.errors import ManifestError
from schemas.manifest import FileInfo, footer

TAIL = 64 * 1024
"""Bytes of the first reading, which most footers fit into."""
HOLE = 512 * 1024
"""Ranges with no more bytes than that between them are one request: it takes less time than a second one."""
AT_ONCE = 64 * 1024 * 1024
"""Bytes of row groups that are read together, and held."""

Range = tuple[int, int]  # start, and end, which is not in it


class RangedFile(io.RawIOBase):
    """An object as a file: what was fetched is at hand, anything else is a request of its own."""

    def __init__(self, store: Store, path: str, size: int):
        self._store, self._path, self._size, self._at = store, path, size, 0
        self._tail = self._request(max(0, size - TAIL), size)
        self._fetched: list[tuple[int, bytes]] = []

    def fetch(self, ranges: Iterable[Range]) -> None:
        """Have ranges at hand, in the place of those that were fetched before, by as few requests as make sense."""
        self._fetched = []
        self._fetched = [
            self._request(start, end) for start, end in joined(ranges) if not self._held(start, end)
        ]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        start = min(self._at, self._size)
        end = self._size if size is None or size < 0 else min(start + size, self._size)
        self._at = end
        if start == end:
            return b""
        at, data = self._held(start, end) or self._request(start, end)
        return data[start - at : end - at]

    def _held(self, start: int, end: int) -> tuple[int, bytes] | None:
        parts = (self._tail, *self._fetched)
        return next((part for part in parts if part[0] <= start and end <= part[0] + len(part[1])), None)

    def _request(self, start: int, end: int) -> tuple[int, bytes]:
        if start == end:
            return start, b""
        with answered(self._path):
            data = self._store.read(self._path, start, end)
        if len(data) != end - start:
            raise OSError(None, f"{len(data):,} bytes came where {end - start:,} are", self._path)
        return start, data


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Sorted ranges, those together that overlap or have no more than a HOLE between them."""
    found: list[Range] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1] + HOLE:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


class RangedParquet(pq.ParquetFile):
    """A Parquet file in an object store. Its columns are fetched before they are decoded."""

    def __init__(self, file: RangedFile):
        self._ranges = file
        super().__init__(pa.PythonFile(file, mode="r"), pre_buffer=False, page_checksum_verification=True)

    def read(self, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        self._fetch(range(self.num_row_groups), columns)
        return super().read(columns=columns, **options | {"use_threads": False})

    def read_row_groups(
        self, row_groups: Sequence[int], columns: Sequence[str] | None = None, **options: Any
    ) -> pa.Table:
        self._fetch(row_groups, columns)
        return super().read_row_groups(row_groups, columns=columns, **options | {"use_threads": False})

    def read_row_group(self, i: int, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        return self.read_row_groups([i], columns=columns, **options)

    def iter_batches(
        self,
        batch_size: int = 65536,
        row_groups: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        **options: Any,
    ) -> Iterator[pa.RecordBatch]:
        groups = range(self.num_row_groups) if row_groups is None else row_groups
        for together in self._together(groups, columns):
            self._fetch(together, columns)
            yield from super().iter_batches(
                batch_size, row_groups=together, columns=columns, **options | {"use_threads": False}
            )

    def _together(self, groups: Iterable[int], columns: Sequence[str] | None) -> Iterator[list[int]]:
        """Row groups in lots of at most AT_ONCE bytes, or one."""
        lot, held = list[int](), 0
        for group in groups:
            size = sum(end - start for start, end in self._chunks(group, columns))
            if lot and held + size > AT_ONCE:
                yield lot
                lot, held = [], 0
            lot.append(group)
            held += size
        if lot:
            yield lot

    def _fetch(self, groups: Iterable[int], columns: Sequence[str] | None) -> None:
        self._ranges.fetch(chunk for group in groups for chunk in self._chunks(group, columns))

    def _chunks(self, group: int, columns: Sequence[str] | None) -> Iterator[Range]:
        """Where a row group has the columns; a nested one has several."""
        found = self.metadata.row_group(group)
        for number in range(found.num_columns):
            chunk = found.column(number)
            if columns is not None and chunk.path_in_schema.partition(".")[0] not in columns:
                continue
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                start = min(start, chunk.dictionary_page_offset)
            yield start, start + chunk.total_compressed_size


def open_parquet(path: str, data: bytes | None = None, *, size: int | None = None) -> pq.ParquetFile:
    """Open a Parquet file by its footer; columns are read on demand.

    Args:
        data: the file's bytes, where they were read already.
        size: of the file in bytes, where it is known: that saves a request to an object store.

    Raises:
        ManifestError: not a whole Parquet file.
    """
    try:
        if data is None and "://" in path:
            store = store_of(path)
            with answered(path):
                size = store.size(path) if size is None else size
            return RangedParquet(RangedFile(store, path, size))
        source = pa.OSFile(path) if data is None else pa.BufferReader(data)
        return pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=True)
    except (OSError, ValueError) as error:
        raise _problem(path, "is not a readable Parquet file", error) from None


def check_footer(path: str, info: FileInfo) -> None:
    """Check an object's size and its footer, in which the place of every column stands, by what a manifest says of it.

    Raises:
        ManifestError: they are others.
    """
    size = min(info.bytes, TAIL)
    try:
        while True:
            with answered(path):
                tail = store_of(path).read(path, info.bytes - size, info.bytes)
            length = 8 + int.from_bytes(tail[-8:-4], "little")
            if length <= size or size == info.bytes:
                break
            size = min(info.bytes, length)
    except OSError as error:
        raise _problem(path, "could not be read", error) from None
    if zlib.crc32(footer(tail)) != info.footer_crc32:
        raise ManifestError(
            f"{path} has another footer than its manifest says: it was damaged after it was published"
        )


def read_table(path: str, columns: list[str] | None = None, *, size: int | None = None) -> pa.Table:
    """A Parquet file, or some of its columns.

    Raises:
        ManifestError: the file is damaged.
    """
    file = open_parquet(path, size=size)
    with damage(path):
        return file.read(columns=columns, use_threads=False)


def read_batches(
    file: pq.ParquetFile, path: str, *, columns: list[str], batch_size: int = 50_000
) -> Iterator[pa.RecordBatch]:
    """The rows of an open Parquet file in batches.

    Raises:
        ManifestError: the file is damaged.
    """
    batches = file.iter_batches(columns=columns, batch_size=batch_size, use_threads=False)
    while True:
        with damage(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextlib.contextmanager
def damage(path: str) -> Iterator[None]:
    """Raise what Arrow says of damaged pages as a ManifestError that names the file."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise _problem(path, "is damaged", error) from None


def _problem(path: str, what: str, error: Exception) -> ManifestError:
    what = "could not be read" if isinstance(error, StoreError) else what
    said = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
    return unreadable(f"{path} {what}: {said}", error)
