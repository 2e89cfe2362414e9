"""An object store in memory, as Beam sees one: `mem://bucket/...`, with keys and no folders."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem

from tests.support.killed import Killed


class MemoryFileSystem(FileSystem):
    """Every instance has the same objects; `before` is called before each change, and may raise."""

    objects: ClassVar[dict[str, bytes]] = {}
    before: ClassVar[Callable[[], None] | None] = None

    @classmethod
    def scheme(cls) -> str:
        return "mem"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *(path.strip("/") for path in paths)])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        raise OSError("an object store has no folders")

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path, data in sorted(self.objects.items()):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(data), 0.0)

    def create(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        self._change()
        objects = self.objects

        class Upload(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    objects[path] = self.getvalue()
                super().close()

        return Upload()

    def open(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return io.BytesIO(self.objects[path])

    def copy(self, source_file_names: Iterable[str], destination_file_names: Iterable[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            self._change()
            self.objects[target] = self.objects[source]

    def rename(self, source_file_names: Iterable[str], destination_file_names: Iterable[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            self.copy([source], [target])
            self.delete([source])

    def exists(self, path: str) -> bool:
        return path in self.objects

    def size(self, path: str) -> int:
        return len(self.objects[path])

    def last_updated(self, path: str) -> float:
        return 0.0

    def checksum(self, path: str) -> str:
        return str(len(self.objects[path]))

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, len(self.objects[path]), 0.0)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._change()
            if re.search(r"[*?]", path) or path not in self.objects:
                raise FileNotFoundError(path)
            del self.objects[path]

    def _change(self) -> None:
        if MemoryFileSystem.before:
            MemoryFileSystem.before()


def each_kill(change: Callable[[], Any]) -> Iterator[bool]:
    """After `change` was killed at its first, second ... change of the store, each from the same objects: False.

    At the end it has made all of them: True.
    """
    objects, finished = dict(MemoryFileSystem.objects), False
    for step in itertools.count():
        MemoryFileSystem.objects.clear()
        MemoryFileSystem.objects.update(objects)
        with killed_store(at=step):
            change()
            finished = True
        yield finished
        if finished:
            return


@contextmanager
def killed_store(*, at: int) -> Iterator[None]:
    """Within it, the change number `at` (from 0) to the store, and every later one, raises `Killed` instead."""
    steps = itertools.count()

    def before() -> None:
        if next(steps) >= at:
            raise Killed

    MemoryFileSystem.before = before
    try:
        yield
    except Killed:
        pass
    finally:
        MemoryFileSystem.before = None
