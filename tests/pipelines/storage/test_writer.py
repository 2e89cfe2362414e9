"""Objects that are written piece by piece: whole when they are closed, and small ones not at all before."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.storage import writer
from pipelines.storage.filesystem import create
from tests.support.object_store import MemoryFileSystem

PATH = "mem://bucket/object"


@pytest.fixture(autouse=True)
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    monkeypatch.setattr(writer, "AT_ONCE", 10)
    yield MemoryFileSystem.objects
    MemoryFileSystem.objects.clear()


@pytest.mark.parametrize(
    "pieces", [[], [b""], [b"a"], [b"123456789"], [b"1234567890"], [b"12345"] * 5, [b"x" * 99, b"y", b""]]
)
def test_an_object_is_what_was_written(objects: dict[str, bytes], pieces: list[bytes]) -> None:
    with create(PATH) as file:
        assert [file.write(piece) for piece in pieces] == list(map(len, pieces))
        assert file.tell() == len(b"".join(pieces))
        assert PATH not in objects
    assert objects == {PATH: b"".join(pieces)}


def test_a_small_object_is_not_written_where_the_body_fails(objects: dict[str, bytes]) -> None:
    def fail() -> None:
        with create(PATH) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    file = create(PATH)
    file.write(b"half")
    del file
    assert not objects


@pytest.mark.parametrize("content", [b"", b"ab", b"x" * 99], ids=len)
def test_a_closed_one_takes_no_more(objects: dict[str, bytes], content: bytes) -> None:
    file = create(PATH)
    file.write(memoryview(content))
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        file.write(b"lost")
    objects[PATH] += b"!"
    del file
    assert objects == {PATH: content + b"!"}


def test_arrow_writes_to_one(objects: dict[str, bytes]) -> None:
    table = pa.table({"a": list(range(100))})
    with create(PATH) as file, pq.ParquetWriter(file, table.schema) as parquet:
        parquet.write_table(table)
    assert pq.read_table(io.BytesIO(objects[PATH])) == table
