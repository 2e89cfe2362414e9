"""Writers of the published tables: one file a shard and table, under a name that the shard decides.

A retried shard writes the same bytes to the same name, so a retry changes nothing and no file is ever half
there. The rows written are told as data; the driver compares them with what it counts in the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.nightly.shards import Handled, MinedShard, RankedShard, Shard, Stage, Tally
from pipelines.storage.filesystem import join, write_bytes
from rerank_core import rows
from rerank_core.config.night import Config
from rerank_core.ranking import order
from rerank_core.ranking.calibration import Calibration
from schemas.records import Rejected

TALLIES = "tallies.json"


def file_name(number: int, total: int) -> str:
    """Name of a shard's file: part-00003-of-00012.parquet."""
    return f"part-{number:05d}-of-{total:05d}.parquet"


def write_table(path: str, table: pa.Table) -> None:
    """Write one Parquet file, zstd compressed, with checksums, and the schema's version and docs in it."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_bytes(path, sink.getvalue().to_pybytes())


class WriteReranked(Stage):
    """A ranked shard -> its file of `reranked`, each query cut to its top_n documents."""

    def __init__(
        self, folder: str, config: Config, *, run_id: str, model_fingerprint: str, calibration: Calibration
    ):
        self._folder, self._top_n, self._calibration = folder, config.ranking.top_n, calibration
        self._store_text, self._run_id, self._model = config.output.store_text, run_id, model_fingerprint

    def handle(self, shard: RankedShard) -> Handled:
        cut = [order.cut(group, top_n=self._top_n) for group in shard.groups]
        below = sum(count for _, count in cut)
        table = rows.reranked(
            (group for group, _ in cut),
            run_id=self._run_id,
            model_fingerprint=self._model,
            store_text=self._store_text,
            calibration=self._calibration,
        )
        write_table(join(self._folder, "reranked", file_name(shard.number, shard.total)), table)
        tally = {"in": table.num_rows + below, "out": table.num_rows, "below_top_n": below}
        return Handled(shard.number, [], tally)


class WriteHardNegatives(Stage):
    """A mined shard -> its files of `hard_negatives` and of the lean `training_pairs`."""

    def __init__(self, folder: str, *, run_id: str, model_fingerprint: str, tagged: bool):
        self._folder, self._run_id, self._model, self._tagged = folder, run_id, model_fingerprint, tagged

    def handle(self, shard: MinedShard) -> Handled:
        name = file_name(shard.number, shard.total)
        rich = rows.hard_negatives(shard.negatives, run_id=self._run_id, model_fingerprint=self._model)
        lean = rows.training_table(shard.negatives, tagged=self._tagged)
        write_table(join(self._folder, "hard_negatives", name), rich)
        write_table(join(self._folder, "training_pairs", name), lean)
        return Handled(
            shard.number, [], {"in": rich.num_rows, "out": rich.num_rows, "training_pairs": lean.num_rows}
        )


class WritePassageTags(Stage):
    """A tagged shard -> its file of `passage_tags`; a passage of several shards stands in each one's file."""

    def __init__(self, folder: str, *, run_id: str):
        self._folder, self._run_id = folder, run_id

    def handle(self, shard: Shard) -> Handled:
        table = rows.passage_tags(dict(shard.facts), run_id=self._run_id)
        write_table(join(self._folder, "passage_tags", file_name(shard.number, shard.total)), table)
        return Handled(shard.number, [], {"in": len(shard.facts), "out": table.num_rows})


class WriteDeadLetters(beam.PTransform):
    """PCollection[Rejected] -> one sorted file of `dead_letters`, empty for a clean night.

    One file: a night with more dead letters than a worker holds is not published anyway.
    """

    def __init__(self, folder: str, *, run_id: str):
        self._folder, self._run_id = folder, run_id

    def expand(self, rejected: beam.PCollection) -> beam.PCollection:
        return (
            rejected
            | beam.combiners.ToList()
            | beam.Map(_write_dead_letters, folder=self._folder, run_id=self._run_id)
        )


def _write_dead_letters(rejected: Iterable[Rejected], folder: str, run_id: str) -> Tally:
    table = rows.dead_letters(rejected, run_id=run_id)
    write_table(join(folder, "dead_letters", file_name(0, 1)), table)
    return ("WriteDeadLetters", "out"), float(table.num_rows)


class WriteTallies(beam.PTransform):
    """PCollection[Tally] -> one JSON file of {stage: {what: sum}} in staging, for the driver."""

    def __init__(self, folder: str):
        self._folder = folder

    def expand(self, tallies: beam.PCollection) -> beam.PCollection:
        return (
            tallies
            | beam.CombinePerKey(sum)
            | beam.combiners.ToList()
            | beam.Map(_write_tallies, self._folder)
        )


def _write_tallies(tallies: Iterable[Tally], folder: str) -> None:
    stages: dict[str, dict[str, float]] = {}
    for (stage, what), amount in sorted(tallies):
        stages.setdefault(stage, {})[what] = amount
    write_bytes(join(folder, TALLIES), json.dumps(stages, sort_keys=True).encode())
