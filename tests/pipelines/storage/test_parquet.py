"""Parquet files of which only the wanted columns are read."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.storage.clients import BeamStore
from pipelines.storage.object_stores import store_of
from pipelines.storage.parquet import HOLE, TAIL, RangedFile, joined, open_parquet, read_batches, read_table
from schemas.errors import ManifestError
from tests.support.object_store import MemoryFileSystem

PATH = "mem://bucket/part.parquet"


@pytest.fixture(scope="module")
def wide() -> bytes:
    """Three row groups; the column `text` is most of the file, and lists are nested."""
    texts = [f"{n} {'long and dull ' * 40}{n * 7919}" for n in range(3000)]
    table = pa.table(
        {"id": [f"{n:08x}" for n in range(3000)], "text": texts, "tags": [[n, n + 1] for n in range(3000)]}
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=1000, compression="none", use_dictionary=["id"])
    return sink.getvalue().to_pybytes()


@pytest.fixture
def requests(wide: bytes, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that were read of the object at PATH."""
    found: list[tuple[int, int]] = []
    real = BeamStore.read

    def read(self: BeamStore, path: str, start: int, end: int) -> bytes:
        found.append((start, end))
        return real(self, path, start, end)

    monkeypatch.setattr(BeamStore, "read", read)
    monkeypatch.setattr(MemoryFileSystem, "objects", {PATH: wide})
    return found


def test_a_footer_is_one_request(requests: list[tuple[int, int]], wide: bytes) -> None:
    assert open_parquet(PATH).metadata.num_rows == 3000
    assert requests == [(len(wide) - TAIL, len(wide))]


@pytest.mark.parametrize("columns", [None, ["id"], ["tags"], ["id", "tags"], ["id", "text", "tags"]])
def test_columns_are_what_the_whole_file_has(
    requests: list[tuple[int, int]], wide: bytes, columns: list[str] | None
) -> None:
    expected = pq.read_table(pa.BufferReader(wide), columns=columns)
    assert read_table(PATH, columns).equals(expected)
    read = sum(end - start for start, end in requests)
    assert (read < len(wide) / 3) == ("text" not in (columns or ["text"]))
    assert len(requests) <= 5  # of each row group one, the tail, and a footer that is longer
    batches = read_batches(
        open_parquet(PATH), PATH, columns=columns or ["id", "text", "tags"], batch_size=700
    )
    assert pa.Table.from_batches(batches).equals(expected)


@given(st.lists(st.tuples(st.integers(0, 5 * HOLE), st.integers(1, HOLE)), max_size=8))
def test_joined_ranges_cover_the_ranges_and_have_large_holes(pairs: list[tuple[int, int]]) -> None:
    ranges = [(start, start + length) for start, length in pairs]
    found = joined(ranges)
    assert all(any(one[0] <= start and end <= one[1] for one in found) for start, end in ranges)
    assert all(second[0] - first[1] > HOLE for first, second in itertools.pairwise(found))


@given(
    data=st.binary(max_size=300),
    reads=st.lists(st.tuples(st.integers(0, 320), st.integers(-1, 320)), max_size=6),
    fetched=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=3),
)
def test_a_ranged_file_reads_as_bytes_do(
    data: bytes, reads: list[tuple[int, int]], fetched: list[tuple[int, int]]
) -> None:
    MemoryFileSystem.objects["mem://bucket/small"] = data
    file, plain = (
        RangedFile(store_of("mem://bucket/small"), "mem://bucket/small", len(data)),
        io.BytesIO(data),
    )
    file.fetch((min(pair), max(pair)) for pair in fetched if max(pair) <= len(data))
    for at, size in reads:
        assert file.seek(at) == plain.seek(at)
        assert file.read(size) == plain.read(size)
    MemoryFileSystem.objects.clear()


@pytest.mark.parametrize("where", ["local", "object store"])
@pytest.mark.parametrize("kept", [0, 3, 40, -9])
def test_what_is_no_whole_file_is_named(
    tmp_path: Path, wide: bytes, monkeypatch: pytest.MonkeyPatch, where: str, kept: int
) -> None:
    (tmp_path / "part.parquet").write_bytes(wide[:kept])
    monkeypatch.setattr(MemoryFileSystem, "objects", {PATH: wide[:kept]})
    path = str(tmp_path / "part.parquet") if where == "local" else PATH
    with pytest.raises(ManifestError, match=f"{path} is not a readable Parquet file"):
        open_parquet(path)
    with pytest.raises(
        ManifestError, match="nosuch is not a readable Parquet file: .*no such|nosuch is not .*No such"
    ):
        open_parquet(path + ".nosuch")
