"""Where each query's rows are in `reranked`: row groups at query boundaries, and the rows of the table `queries`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import QUERIES

STAGED = "_queries"
"""Folder in staging of what each shard says of its queries, until the driver merges it; no table."""

ROWS_PER_GROUP = 1_000
"""A row group of `reranked` is closed at the end of the query that fills it: what one look-up reads."""


def places(table: pa.Table, part: str, counts: Mapping[str, int]) -> pa.Table:
    """The rows of `queries` for one file of `reranked`.

    Args:
        table: rows of `reranked`, those of a query together.
        part: name of the file that they will be in, with the `row_groups` of this result.
        counts: events of each query in the log's window, by query_id.
    """
    runs = pc.run_end_encode(table["query_id"].combine_chunks())
    ids, bounds = runs.values.to_pylist(), [0, *runs.run_ends.to_pylist()]
    rows = [end - start for start, end in itertools.pairwise(bounds)]
    groups, offsets = _in_groups(rows)
    first = table.take(pa.array(bounds[:-1], pa.int32()))
    stale = first["stale_since"] if "stale_since" in first.schema.names else pa.nulls(len(ids), pa.string())
    columns = {
        "query_id": ids,
        "query": first["query"],
        "count": [counts[query_id] for query_id in ids],
        "rows": rows,
        "part": [part] * len(ids),
        "row_group": groups,
        "row": offsets,
        "stale_since": stale,
    }
    return pa.Table.from_pydict(columns, schema=QUERIES)


def _in_groups(rows: list[int]) -> tuple[list[int], list[int]]:
    """The row group of each query and its first row in it."""
    groups, offsets = [], []
    group = filled = 0
    for count in rows:
        groups.append(group)
        offsets.append(filled)
        filled += count
        if filled >= ROWS_PER_GROUP:
            group, filled = group + 1, 0
    return groups, offsets


def row_groups(places: pa.Table) -> list[int]:
    """Rows of each row group of the file of `reranked` that these `places` are of."""
    sizes: list[int] = []
    for group, rows in zip(places["row_group"].to_pylist(), places["rows"].to_pylist(), strict=True):
        if group == len(sizes):
            sizes.append(0)
        sizes[group] += rows
    return sizes
