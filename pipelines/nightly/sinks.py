"""Writers of the published tables: one file per shard and table, whose name depends on the shard alone.

A retried shard writes the same bytes to the same name, so a retry changes nothing. The numbers of rows written are
tallies; the driver compares them with the rows that it counts in the files.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam import pvalue

from pipelines.nightly import query_table
from pipelines.nightly.prepare import Run
from pipelines.nightly.shard_stage import Handled, ShardStage, Tally
from pipelines.nightly.shards import MinedShard, RankedShard
from pipelines.storage.filesystem import join, write_bytes
from rerank_core import rows
from rerank_core.config.night import Config
from rerank_core.ranking import order
from rerank_core.ranking.calibration import Calibration
from schemas.records import Rejected

TALLIES = "tallies.json"
LETTERS_PER_FILE = 100_000


def file_name(number: int, total: int, part: Sequence[int] = ()) -> str:
    """Name of a shard's file, part-00003-of-00012.parquet; sorted by name, files are sorted by number.

    Args:
        part: of a shard that was cut into parts; the third one's file is part-00003-of-00012-00002.parquet.
    """
    digits = max(5, len(str(total)))
    suffix = "".join(f"-{at:05d}" for at in part)
    return f"part-{number:0{digits}d}-of-{total:0{digits}d}{suffix}.parquet"


def write_table(run: Run, name: str, part: str, table: pa.Table, *, row_groups: Sequence[int] = ()) -> None:
    """Write one Parquet file, zstd compressed, with checksums, the schema's version and docs, and the run's id in it.

    A table without rows has no row group: `datasets` cannot read an empty one.

    Args:
        row_groups: rows of each row group, which add up to the table's; by default Arrow chooses.
    """
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"run_id": run.run_id.encode()})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=3,  # a tenth smaller than level 1, Arrow's default, and read as fast
        # Values that are nearly all different, in row groups for look-ups by the first column.
        use_dictionary=name not in ("queries", "passage_tags"),
        write_statistics=["passage_key"] if name == "passage_tags" else True,
        write_page_checksum=True,
    ) as writer:
        if table.num_rows and not row_groups:
            writer.write_table(table)
        start = 0
        for rows_of_group in row_groups:
            writer.write_table(table.slice(start, rows_of_group), row_group_size=rows_of_group)
            start += rows_of_group
    write_bytes(join(run.staging, name, part), sink.getvalue().to_pybytes())


def write_lists(run: Run, part: str, table: pa.Table, counts: Mapping[str, int]) -> None:
    """Write one file of `reranked`, and in staging what the table `queries` will say of its queries.

    Args:
        table: rows of `reranked`, those of a query together.
        counts: events of each query in the log's window, by query_id.
    """
    places = query_table.places(table, part, counts)
    write_table(run, "reranked", part, table, row_groups=query_table.row_groups(places))
    write_table(run, query_table.STAGED, part, places)


class WriteReranked(ShardStage):
    """A ranked shard -> its file of `reranked`, each query cut to its top_n documents; and who was not reached.

    Args:
        model: fingerprint of the scorer.
    """

    def __init__(self, run: Run, config: Config, *, model: str, calibration: Calibration):
        self._run, self._model, self._calibration = run, model, calibration
        self._top_n, self._store_text = config.ranking.top_n, config.output.store_text

    def handle(self, shard: RankedShard) -> Handled:
        cut = [order.cut(group, top_n=self._top_n) for group in shard.groups]
        below = sum(count for _, count in cut)
        table = rows.reranked(
            (group for group, _ in cut),
            model_fingerprint=self._model,
            store_text=self._store_text,
            calibration=self._calibration,
        )
        counts = {group.query.query_id: group.query.count for group in shard.groups}
        write_lists(self._run, file_name(shard.number, shard.total, shard.part), table, counts)
        tally = Counter({"in": table.num_rows + below, "out": table.num_rows, "below_top_n": below})
        tally.update(f"not_reached:{unreached.query.count}" for unreached in shard.unreached)
        return Handled(shard.unreached, [], tally)


class WriteHardNegatives(ShardStage):
    """A mined shard -> its files of `hard_negatives` and of the lean `training_pairs`."""

    def __init__(self, run: Run, *, model: str, tagged: bool):
        self._run, self._model, self._tagged = run, model, tagged

    def handle(self, shard: MinedShard) -> Handled:
        name = file_name(shard.number, shard.total, shard.part)
        rich = rows.hard_negatives(shard.negatives, model_fingerprint=self._model)
        lean = rows.training_table(shard.negatives, tagged=self._tagged)
        write_table(self._run, "hard_negatives", name, rich)
        write_table(self._run, "training_pairs", name, lean)
        tally = {"in": rich.num_rows, "out": rich.num_rows, "training_pairs": lean.num_rows}
        return Handled(shard.number, [], tally)


class WriteDeadLetters(beam.PTransform):
    """PCollection[Rejected] -> sorted files of `dead_letters`, one for each 100,000; for a clean night an empty one."""

    def __init__(self, run: Run):
        self._run = run

    def expand(self, rejected: beam.PCollection) -> beam.PCollection:
        counted = rejected | "Count" >> beam.combiners.Count.Globally().without_defaults()
        count = pvalue.AsSingleton(counted, default_value=0)
        # Any: a lone surrogate in a record survives pickling, but not the coder that typed rows would get.
        of_file = tuple[tuple[int, int], Any]
        begin = rejected.pipeline | "Begin" >> beam.Create([None])
        files = begin | "Files" >> beam.FlatMap(_files, count).with_output_types(of_file)
        keyed = rejected | "FileOf" >> beam.Map(_file_of, count).with_output_types(of_file)
        return (
            [files, keyed]
            | "Both" >> beam.Flatten()
            | "ByFile" >> beam.GroupByKey()
            | "WriteFile" >> beam.Map(_write_dead_letters, self._run)
        )


def _files(_: None, count: int) -> Iterator[tuple[tuple[int, int], None]]:
    total = max(1, -(-count // LETTERS_PER_FILE))
    yield from (((number, total), None) for number in range(total))


def _file_of(rejected: Rejected, count: int) -> tuple[tuple[int, int], Rejected]:
    """A record with its file, which depends on the record and the number of all: a retry puts it into the same one."""
    total = max(1, -(-count // LETTERS_PER_FILE))
    return (zlib.crc32(repr(rejected).encode("utf-8", "backslashreplace")) % total, total), rejected


def _write_dead_letters(grouped: tuple[tuple[int, int], Iterable[Rejected | None]], run: Run) -> Tally:
    (number, total), rejected = grouped
    table = rows.dead_letters(record for record in rejected if record)
    write_table(run, "dead_letters", file_name(number, total), table)
    return ("WriteDeadLetters", "out"), float(table.num_rows)


class WriteTallies(beam.PTransform):
    """PCollection[Tally] -> one JSON file of {stage: {what: sum}} in staging, for the driver."""

    def __init__(self, run: Run):
        self._run = run

    def expand(self, tallies: beam.PCollection) -> beam.PCollection:
        sums = tallies | beam.CombinePerKey(sum) | beam.combiners.ToList().without_defaults()
        return sums | beam.Map(_write_tallies, self._run.staging)


def _write_tallies(tallies: Iterable[Tally], staging: str) -> None:
    stages: dict[str, dict[str, float]] = {}
    for (stage, what), amount in sorted(tallies):
        stages.setdefault(stage, {})[what] = amount
    write_bytes(join(staging, TALLIES), json.dumps(stages, sort_keys=True).encode())
