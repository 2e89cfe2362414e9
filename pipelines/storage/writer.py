"""New objects of a store that are written piece by piece."""

from __future__ import annotations

import contextlib
import io
from types import TracebackType
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.storage.object_stores import answered, store_of

AT_ONCE = 8 * 1024 * 1024
"""An object of fewer bytes is written by one request, when it is closed; a larger one in parts, by Beam."""


class ObjectWriter(io.RawIOBase):
    """A new object as a file. Beam alone would need three requests at least, and S3 refuses its objects of no bytes.

    A small object is not written if the body of `with` raises; of a larger one there may be a part (`_discard`).
    """

    def __init__(self, path: str):
        self._path, self._held, self._at = path, bytearray(), 0
        self._stream: Any = None

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError("write to closed file")
        count = memoryview(data).nbytes
        if self._stream is None:
            self._held += data
            if len(self._held) >= AT_ONCE:
                with answered(self._path):
                    self._stream = FileSystems.create(
                        self._path, compression_type=CompressionTypes.UNCOMPRESSED
                    )
                    self._stream.write(bytes(self._held))
                self._held.clear()
        else:
            with answered(self._path):
                self._stream.write(bytes(data))
        self._at += count
        return count

    def close(self) -> None:
        if self.closed:
            return
        super().close()  # whatever comes of it: nothing is written a second time
        with answered(self._path):
            if self._stream is None:
                store_of(self._path).put(self._path, bytes(self._held))
            else:
                self._stream.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._discard()

    def __del__(self) -> None:
        self._discard()  # it was never closed

    def _discard(self) -> None:
        """Close the file without what was not sent yet.

        A large object may be left truncated, since a stream of Beam's can be closed, but not abandoned. That does no
        harm, as nothing names it: an export's lies at a temporary path, which is removed, and a model's files belong to
        a registry only once its entry is written, after all of them.
        """
        if not self.closed:
            super().close()
            if self._stream is not None:
                with contextlib.suppress(Exception):
                    self._stream.close()
