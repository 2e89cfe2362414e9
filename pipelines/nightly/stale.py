"""Queries that a night had no time for keep the list that is in service, marked stale with the date that made it.

The lists are copied by file of the earlier run, each of which is read once; the rows of two files become one file of
tonight's table. One by one, every night with a deadline would add files of lists that were kept before. Beside the two,
memory holds the ids of the queries alone.
"""

from __future__ import annotations

from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.nightly.prepare import Run
from pipelines.nightly.previous import STALE, Lists
from pipelines.nightly.shard_stage import Handled, ShardStage, StageOutputs
from pipelines.nightly.shards import Unreached
from pipelines.nightly.sinks import file_name, write_lists
from pipelines.storage.filesystem import read_table
from rerank_core.config.night import Config
from rerank_core.querylog.privacy import shown
from schemas.records import Rejected
from schemas.tables import RERANKED

REASON = "not_reached"
FILES_TOGETHER = 2
"""Files of the earlier run whose kept lists become one file: a night adds no more files than it has shards itself."""


class KeepLists(beam.PTransform):
    """PCollection of each shard's unreached queries -> what the two stages below reject and count."""

    def __init__(self, run: Run, config: Config, lists: Lists):
        self._run, self._config, self._lists = run, config, lists

    def expand(self, unreached: beam.PCollection) -> StageOutputs:
        found = unreached | FindLists()
        copied = (
            found.main
            | "OfEachQuery" >> beam.FlatMap(lambda queries: queries)
            | "ByFile" >> beam.GroupByKey()
            | "Kept" >> beam.MapTuple(lambda number, queries: Kept(number, tuple(queries)))
            | CopyLists(self._run, self._config, self._lists)
        )
        return StageOutputs(
            copied.main,
            [found.rejected, copied.rejected] | "Rejected" >> beam.Flatten(),
            [found.tallies, copied.tallies] | "Tallies" >> beam.Flatten(),
        )


class FindLists(ShardStage):
    """Unreached queries of a shard -> (number of the file to write, KeptQuery); without a list, a reject."""

    def handle(self, unreached: tuple[Unreached, ...]) -> Handled:
        kept = [
            (one.file // FILES_TOGETHER, KeptQuery(one.query.query_id, one.query.count, one.file))
            for one in unreached
            if one.file >= 0
        ]
        rejected = [_not_reached(one) for one in unreached if one.file < 0]
        return Handled(kept, rejected, {"in": len(unreached), "out": len(kept)})


class KeptQuery(NamedTuple):
    """A query whose list is copied."""

    query_id: str
    events: int  # how often it occurs in the log tonight
    file: int  # of the earlier run


class Kept(NamedTuple):
    """The queries whose lists are copied into one file."""

    number: int
    queries: tuple[KeptQuery, ...]


class CopyLists(ShardStage):
    """Kept -> a file of `reranked` with the rows of these queries, as they are, but for `stale_since`."""

    def __init__(self, run: Run, config: Config, lists: Lists):
        self._run, self._lists, self._store_text = run, lists, config.output.store_text

    def handle(self, kept: Kept) -> Handled:
        files = sorted({query.file for query in kept.queries})
        wanted = pa.array(sorted(query.query_id for query in kept.queries), pa.string())
        table = pa.concat_tables(self._copied(file, wanted) for file in files).sort_by("query_id")
        if not self._store_text:
            for name in ("title", "text"):
                table = _with(table, name, pa.nulls(table.num_rows, pa.string()))
        total = -(-len(self._lists.files) // FILES_TOGETHER)
        name = file_name(kept.number, total).replace("part-", "part-stale-")
        write_lists(self._run, name, table, {query.query_id: query.events for query in kept.queries})
        return Handled(kept.number, [], {"in": len(wanted), "out": table.num_rows})

    def _copied(self, file: int, wanted: pa.Array) -> pa.Table:
        table = read_table(self._lists.files[file])
        return stale(table.filter(pc.is_in(table["query_id"], wanted)), since=self._lists.run_date)


def stale(table: pa.Table, *, since: str) -> pa.Table:
    """Rows of an earlier `reranked` as tonight's; one that was stale already keeps its date.

    Args:
        since: date of the run that the rows are from, YYYY-MM-DD.
    """
    known = table[STALE] if STALE in table.schema.names else pa.nulls(table.num_rows, pa.string())
    dated = pc.fill_null(known, since)
    columns = [dated if name == STALE else table[name] for name in RERANKED.names]
    return pa.Table.from_arrays(columns, schema=RERANKED)


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), column)


def _not_reached(unreached: Unreached) -> Rejected:
    query = unreached.query
    detail = f"no time for {shown(query.text)}, asked {query.count} times, and it has no earlier list"
    return Rejected("FindLists", "query", query.query_id, REASON, detail)
