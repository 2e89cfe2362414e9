"""Facts of passages by key: what is looked up is what was kept, and a look-up reads no more as the table grows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.nightly import write_facts
from pipelines.nightly.facts import StoredFacts, file_of_key, read_facts
from pipelines.nightly.prepare import Run
from pipelines.nightly.shards import Shard
from pipelines.nightly.write_facts import FilePieces, PackFacts, _WriteFacts, file_count, pack, unpack
from pipelines.storage import filesystem
from rerank_core import rows
from schemas.errors import ManifestError
from schemas.records import Mention, PassageFacts

NAMES = ("Ada", "Łódź", "New York", "a" * 40)


def key_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def facts_of(numbers: range | list[int]) -> dict[str, PassageFacts]:
    """Facts that differ by number, some without mentions."""
    return {
        key_of(n): PassageFacts(
            tuple(Mention(NAMES[(n + i) % 4], "PER", i, i + n) for i in range(n % 4)), n, "Other", n % 2 == 0
        )
        for n in numbers
    }


def write(folder: Path, shards: list[dict[str, PassageFacts]], *, pairs_per_shard: int) -> StoredFacts:
    """The table as the stages write it, given the facts of each shard."""
    run, by_file = Run("r", "2026-03-08", None, str(folder), None), dict[tuple[int, int], list]()
    for number, kept in enumerate(shards):
        shard = Shard(number, len(shards), (), (), tuple(sorted(kept.items())))
        for file, piece in PackFacts(pairs_per_shard).handle(shard).shard:
            by_file.setdefault(file, []).append(piece)
    for (number, total), pieces in by_file.items():
        _WriteFacts(run).handle(FilePieces(number, total, tuple(reversed(pieces))))
    return StoredFacts(tuple(filesystem.files(str(folder / "passage_tags"))))


def shards_of(numbers: list[list[int]]) -> list[dict[str, PassageFacts]]:
    return [facts_of(some) for some in numbers]


@given(
    st.lists(st.lists(st.integers(0, 60), max_size=40), min_size=1, max_size=5),
    st.sets(st.integers(0, 80)),
    st.integers(1, 3),
    st.integers(1, 7),
)
def test_a_look_up_finds_what_the_shards_had_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    numbers: list[list[int]],
    wanted: set[int],
    per_file: int,
    per_group: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_facts, "FACTS_PER_FILE", per_file * 10)
        patch.setattr(write_facts, "FACTS_PER_GROUP", per_group)
        stored = write(tmp_path_factory.mktemp("facts"), shards_of(numbers), pairs_per_shard=20)
    every = facts_of([n for some in numbers for n in some])
    keys = {key_of(n) for n in wanted}
    expected = {key: every[key] for key in keys & every.keys()}
    assert read_facts(stored, keys) == expected
    assert (
        read_facts(stored._replace(by_key=False), keys) == expected
    )  # as a table of an earlier version is read
    tables = [filesystem.read_table(path) for path in stored.files]
    published = [key for table in tables for key in table["passage_key"].to_pylist()]
    assert published == sorted(every)  # each once; files sorted by name hold them in order


def test_row_groups_that_cannot_hold_a_key_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = pq.ParquetFile.read_row_groups

    def counted(file: pq.ParquetFile, groups: list[int], **options: object) -> object:
        read.extend(file.metadata.row_group(group).num_rows for group in groups)
        return plain(file, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    monkeypatch.setattr(write_facts, "FACTS_PER_FILE", 500)
    monkeypatch.setattr(write_facts, "FACTS_PER_GROUP", 20)
    for size in (1_000, 4_000):
        stored = write(tmp_path / str(size), [facts_of(range(size))], pairs_per_shard=size)
        assert len(stored.files) == file_count(1, size) == size // 500
        keys = {key_of(n) for n in range(0, size, size // 10)}
        read.clear()
        assert len(read_facts(stored, keys)) == 10
        assert sum(read) <= 10 * 20  # a row group for each, however large the table


@pytest.mark.parametrize("keep", [lambda data: data[:30] + b"\xff" * 40 + data[70:], lambda data: data[:-9]])
def test_a_damaged_file_is_named(tmp_path: Path, keep: Callable[[bytes], bytes]) -> None:
    stored = write(tmp_path, [facts_of(range(50))], pairs_per_shard=50)
    path = Path(stored.files[0])
    path.write_bytes(keep(path.read_bytes()))
    with pytest.raises(ManifestError, match=path.name):
        read_facts(stored, {key_of(1)})


@given(st.lists(st.integers(0, 1000), max_size=20))
def test_facts_are_packed_without_loss(numbers: list[int]) -> None:
    kept = facts_of(numbers)
    assert rows.read_passage_tags(unpack(pack(sorted(kept.items())))) == kept


def test_without_a_table_nothing_is_known() -> None:
    assert read_facts(StoredFacts(), {key_of(1)}) == {}
    assert [file_of_key(digit * 32, 7) for digit in "0f"] == [0, 6]
