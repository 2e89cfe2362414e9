"""Writes the table `passage_tags` by ranges of the passage key, so that a look-up reads only what may hold its keys.

A shard's facts go to the files of their keys through a shuffle, packed: some 60 bytes a passage, without its text.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.nightly.facts import file_of_key
from pipelines.nightly.prepare import Run
from pipelines.nightly.shard_stage import Handled, ShardStage, StageOutputs
from pipelines.nightly.shards import Shard
from pipelines.nightly.sinks import file_name, write_table
from rerank_core import rows
from schemas.records import PassageFacts
from schemas.tables import PASSAGE_TAGS

FACTS_PER_FILE, FACTS_PER_GROUP = 20_000, 512
"""More a group: more bytes for each fact that is looked up. Fewer: a larger footer, and a slower reading of all."""

NAME = "WritePassageTags"
Piece = tuple[tuple[int, ...], bytes]  # number and part of the shard, and its facts of one file


def file_count(shards: int, pairs_per_shard: int) -> int:
    """Number of files for a night of so many shards."""
    return max(1, -(-shards * pairs_per_shard // FACTS_PER_FILE))


class WritePassageTags(beam.PTransform):
    """PCollection from `PackFacts` -> the files of `passage_tags`."""

    def __init__(self, run: Run):
        self._run = run

    def expand(self, packed: beam.PCollection) -> StageOutputs:
        written: StageOutputs = (
            packed
            | "OfEachFile" >> beam.FlatMap(lambda pieces: pieces)
            | "ByFile" >> beam.GroupByKey()
            | "Pieces" >> beam.MapTuple(_file_pieces)
            | "WriteFacts" >> _WriteFacts(self._run)
        )
        return written


class PackFacts(ShardStage):
    """A tagged shard -> its facts for each file of the table: [((number, total), Piece)]."""

    def __init__(self, pairs_per_shard: int):
        self._pairs = pairs_per_shard

    @property
    def name(self) -> str:
        return NAME

    def handle(self, shard: Shard) -> Handled:
        total, place = file_count(shard.total, self._pairs), (shard.number, *shard.part)
        packed = [
            ((number, total), (place, pack(facts)))
            for number, facts in itertools.groupby(shard.facts, lambda one: file_of_key(one[0], total))
        ]
        none = [((0, total), (place, pack(())))]  # or a night without tags had no file of the table
        return Handled(packed or none, [], {"in": len(shard.facts)})


class FilePieces(NamedTuple):
    """What the shards have for one file."""

    number: int
    total: int
    pieces: tuple[Piece, ...]


def _file_pieces(file: tuple[int, int], pieces: Iterable[Piece]) -> FilePieces:
    return FilePieces(*file, pieces=tuple(pieces))


class _WriteFacts(ShardStage):
    """FilePieces -> the file; a passage of several shards is in it once."""

    def __init__(self, run: Run):
        self._run = run

    @property
    def name(self) -> str:
        return NAME

    def handle(self, file: FilePieces) -> Handled:
        every = pa.concat_tables(unpack(piece) for _, piece in sorted(file.pieces))
        table = distinct(every)
        write_facts(self._run, file.number, file.total, table)
        again = every.num_rows - table.num_rows
        return Handled(file.number, [], {"out": table.num_rows, "again": again})


def write_facts(run: Run, number: int, total: int, table: pa.Table) -> None:
    """Write a file of `passage_tags`, given its rows sorted by key."""
    whole, rest = divmod(table.num_rows, FACTS_PER_GROUP)
    sizes = [FACTS_PER_GROUP] * whole + [rest] * bool(rest)
    write_table(run, "passage_tags", file_name(number, total), table, row_groups=sizes)


def pack(facts: Iterable[tuple[str, PassageFacts]]) -> bytes:
    """Facts by key, sorted, as bytes."""
    batch = rows.passage_tags(dict(facts)).combine_chunks().to_batches()
    return zlib.compress(batch[0].serialize(), 1) if batch else b""


def unpack(packed: bytes) -> pa.Table:
    """The rows of `passage_tags` that `pack` packed."""
    if not packed:
        return PASSAGE_TAGS.empty_table()
    batch = pa.ipc.read_record_batch(pa.py_buffer(zlib.decompress(packed)), PASSAGE_TAGS)
    return pa.Table.from_batches([batch], PASSAGE_TAGS)


def distinct(table: pa.Table) -> pa.Table:
    """Rows of `passage_tags` sorted by key, the first one of each."""
    number = pa.array(range(table.num_rows), pa.int64())
    order = pa.table({"key": table["passage_key"], "number": number}).sort_by(
        [("key", "ascending"), ("number", "ascending")]
    )
    keys = order["key"].combine_chunks()
    if not len(keys):
        return table
    first = pa.concat_arrays([pa.array([True]), pc.not_equal(keys[1:], keys[:-1])])
    return table.take(order["number"].filter(first))
