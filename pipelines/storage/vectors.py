"""Vectors of passages that are kept over nights, beside the runs: OUTPUT/_vectors/IDENTITY/SHA256.arrow.

A cache: no run depends on it, and it may be removed at any time. A file is named by the checksum of its bytes, and one
that does not match is not used. Its folder is the identity of all that changes a vector. Only passages are kept, never
queries, which are personal data.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.storage.filesystem import write_bytes
from rerank_core.scoring.protocol import Embedded

FOLDER = "_vectors"
KEY = 16  # bytes

MOST_FILES = 16
"""Files of one identity beyond which they are merged: each shard of a night writes one."""

SHARE_KEPT = 0.9
"""Of the most that may be kept, what is left of more: not every night has to merge then."""

ROWS = 50_000
"""Vectors of a part of a merged file: 75 MB of 384 numbers."""

_logger = logging.getLogger("pipelines")


class KeptVectors:
    """The vectors of one identity. Safe to share between threads; implements `protocol.VectorStore`.

    Args:
        folder: of the identity; it need not exist.
        most: bytes of new vectors, about, that this object writes; 0: it only looks up.
    """

    def __init__(self, folder: Path, *, most: int) -> None:
        self._folder, self._left = folder, most
        self._lock = threading.Lock()
        self._parts: list[_Part] | None = None
        self._new: dict[bytes, Embedded] = {}

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, Embedded]:
        """The vectors of these keys, as far as they were kept before this object was first asked."""
        with self._lock:
            if self._parts is None:
                self._parts = [part for file in _files(self._folder) for part in _read(file)]
        found: dict[bytes, Embedded] = {}
        for part in self._parts:
            missing = [key for key in keys if key not in found]
            found.update(part.look_up(missing) if missing else {})
        return found

    def add(self, vectors: Mapping[bytes, Embedded]) -> None:
        """Take vectors for the next `flush`, as long as there is room."""
        with self._lock:
            if self._left > 0:
                self._new.update(vectors)
                self._left -= sum(one.vector.nbytes for one in vectors.values())

    def flush(self) -> None:
        """Write what was added; what cannot be written is embedded again another night."""
        with self._lock:
            new, self._new = self._new, {}
        if new:
            data = _bytes(new)
            try:
                write_bytes(str(self._folder / f"{hashlib.sha256(data).hexdigest()}.arrow"), data)
            except OSError as error:
                _logger.debug("%d vectors are not kept: %s", len(new), error)


def keep_within(output: str, megabytes: int) -> None:
    """Merge the files of each identity if they are many, and remove the oldest vectors beyond that size.

    The identity that was written last comes first; of one, the vectors that were written last. Nothing is raised.
    """
    root, left = Path(output, FOLDER), megabytes * 1_000_000
    try:
        for temporary in root.glob("*/_*.tmp-*"):  # of a process that was killed
            temporary.unlink()
        for folder in sorted(filter(Path.is_dir, root.glob("*")), key=_newest, reverse=True):
            files = _files(folder)
            size = sum(file.stat().st_size for file in files)
            if left <= 0:
                shutil.rmtree(folder)
            elif size > left or len(files) > MOST_FILES:
                size = _merge(folder, files, most=left if size <= left else int(SHARE_KEPT * left))
            left -= size
    except OSError as error:
        _logger.debug("the vectors in %s are left as they are: %s", root, error)


class _Part(NamedTuple):
    """Vectors of a file."""

    keys: np.ndarray  # uint64 [vectors, 2], rising in the first
    rows: np.ndarray  # int [vectors]: each key's row
    overflow: np.ndarray  # int32 [rows]
    vectors: np.ndarray  # float32 [rows, size], in the file's own memory

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, Embedded]:
        wanted = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
        at = np.minimum(np.searchsorted(self.keys[:, 0], wanted[:, 0]), len(self.keys) - 1)
        hits = np.flatnonzero((self.keys[at] == wanted).all(axis=1))
        rows = self.rows[at[hits]]
        return {
            keys[n]: Embedded(self.vectors[row].copy(), int(self.overflow[row]))
            for n, row in zip(hits.tolist(), rows.tolist(), strict=True)
        }


def _bytes(vectors: Mapping[bytes, Embedded]) -> bytes:
    sink, batch = pa.BufferOutputStream(), _batch_of(vectors)
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _batch_of(vectors: Mapping[bytes, Embedded]) -> pa.RecordBatch:
    matrix = np.stack([one.vector for one in vectors.values()]).astype(np.float32, copy=False)
    columns = {
        "key": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(KEY), len(vectors), [None, pa.py_buffer(b"".join(vectors))]
        ),
        "overflow": pa.array([one.overflow for one in vectors.values()], pa.int32()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1]),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _files(folder: Path) -> list[Path]:
    """The files of an identity, the newest first."""
    return sorted(folder.glob("*.arrow"), key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)


def _newest(folder: Path) -> int:
    """When an identity's newest file was written; 0 without any."""
    return max((file.stat().st_mtime_ns for file in folder.glob("*.arrow")), default=0)


def _read(file: Path) -> list[_Part]:
    """The parts of a file, whose vectors stay on disk until they are read; none of a damaged one."""
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != file.stem:
            raise ValueError("its bytes are not those that were written")
        with pa.memory_map(str(file)) as source:
            reader = pa.ipc.open_file(source)
            return [_part(reader.get_batch(number)) for number in range(reader.num_record_batches)]
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        _logger.warning("the kept vectors in %s are not used (%s); it can be removed", file, error)
        return []


def _part(batch: pa.RecordBatch) -> _Part:
    keys = np.frombuffer(batch.column("key").buffers()[1], np.uint64).reshape(-1, 2)[: batch.num_rows]
    vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=True).reshape(batch.num_rows, -1)
    rows = np.argsort(keys[:, 0], kind="stable")
    return _Part(keys[rows], rows, batch.column("overflow").to_numpy(zero_copy_only=True), vectors)


def _merge(folder: Path, files: Sequence[Path], *, most: int) -> int:
    """Replace files, the newest first, by one of at most so many bytes, about; its size."""
    temporary, batches = folder / f"_merged.tmp-{uuid.uuid4().hex}", _merged(files, most=most)
    kept, size = set[Path](), 0
    if (first := next(batches, None)) is not None:  # else all were damaged
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
            for batch in itertools.chain([first], batches):
                writer.write_batch(batch)
        with temporary.open("rb") as stream:
            merged = folder / f"{hashlib.file_digest(stream, 'sha256').hexdigest()}.arrow"
        size = temporary.stat().st_size
        temporary.replace(merged)
        kept.add(merged)
    for file in set(files) - kept:
        file.unlink()
    return size


def _merged(files: Sequence[Path], *, most: int) -> Iterator[pa.RecordBatch]:
    """The vectors of some files, each key once, in batches of ROWS; the first ones, up to so many bytes."""
    seen: set[bytes] = set()
    held: list[tuple[bytes, Embedded]] = []
    for file in files:
        for part in _read(file):
            size = part.vectors.shape[1] * 4 + KEY + 4
            for at, row in sorted(enumerate(part.rows.tolist()), key=lambda both: both[1]):
                key = part.keys[at].tobytes()
                if key in seen or (len(seen) + 1) * size > most:
                    continue
                seen.add(key)
                held.append((key, Embedded(part.vectors[row], int(part.overflow[row]))))
                if len(held) == ROWS:
                    yield _batch_of(dict(held))
                    held = []
    if held:
        yield _batch_of(dict(held))
