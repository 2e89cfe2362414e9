"""A sample of a run's lists, drawn by hash so that two nights have the same queries in it; its memory is bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.storage.parquet import damage, open_parquet
from schemas.errors import ManifestError
from schemas.tables import TABLES

MOST_QUERIES, MOST_ROWS = 2000, 400_000
COLUMNS = [
    "query_id",
    "passage_id",
    "rank",
    "logit",
    "fused_logit",
    "score",
    "hop",
    "role",
    "causal",
    "reasoning",
    "entities",
]
STALE = "stale_since"  # runs of earlier versions have no such column, and no such rows
CONSTANT = 0.001  # logits of a query that are so close together are one logit


class Sample(NamedTuple):
    """Rows of `reranked` of some queries that the night reranked itself, sorted by query and rank."""

    rows: pa.Table
    queries: list[str]  # their ids

    def of(self, queries: Collection[str]) -> Sample:
        """Its rows of some of the queries."""
        kept = self.rows.filter(pc.is_in(self.rows["query_id"], pa.array(sorted(queries), pa.string())))
        return Sample(kept, sorted(set(self.queries) & set(queries)))


def boundary(queries: int, rows: int) -> str:
    """The query id below which a run's sample lies: the lowest ids, which are hashes of the queries' texts."""
    most = min(MOST_QUERIES, max(1, MOST_ROWS * queries // max(1, rows)))
    if queries <= most:
        return "g"  # above every hexadecimal id
    return f"{int(most / queries * 16**16):016x}"


def read_sample(paths: Iterable[str], *, below: str, also: Collection[str] = ()) -> Sample:
    """The rows of the queries whose id is below `below`, and of those in `also`, without lists of earlier nights.

    Raises:
        ManifestError: a file is damaged, or of a version with other columns.
    """
    wanted = pa.array(sorted(also), pa.string())
    parts = [_filtered(_read(path), below, wanted) for path in paths]
    rows = pa.concat_tables(parts) if parts else TABLES["reranked"].empty_table().select(COLUMNS)
    rows = rows.sort_by([("query_id", "ascending"), ("rank", "ascending")])
    return Sample(rows, pc.unique(rows["query_id"]).to_pylist())


def _filtered(rows: pa.Table, below: str, also: pa.Array) -> pa.Table:
    mask = pc.less(rows["query_id"], below)
    return rows.filter(pc.or_(mask, pc.is_in(rows["query_id"], also)) if len(also) else mask)


def _read(path: str) -> pa.Table:
    file = open_parquet(path)
    names = [*COLUMNS, STALE] if STALE in file.schema_arrow.names else COLUMNS
    with damage(path):
        rows = file.read(columns=names, use_threads=False)
    if missing := set(COLUMNS) - set(rows.column_names):
        raise ManifestError(f"{path} has no column {min(missing)!r}: it is of another version")
    # A list that the deadline left as it was is of another night, and maybe of another model.
    return rows.filter(pc.is_null(rows[STALE])).select(COLUMNS) if STALE in names else rows


def scores(sample: Sample, *, first: int = 0) -> np.ndarray:
    """The published scores, of the first ranks alone if `first` is set; pruned candidates have none."""
    rows = sample.rows.filter(pc.less_equal(sample.rows["rank"], first)) if first else sample.rows
    found: np.ndarray = rows["score"].drop_null().to_numpy()
    return found


def lists(sample: Sample) -> dict[str, list[str]]:
    """Passages by query, in the published order."""
    found: dict[str, list[str]] = {}
    for query, passage in zip(
        sample.rows["query_id"].to_pylist(), sample.rows["passage_id"].to_pylist(), strict=True
    ):
        found.setdefault(query, []).append(passage)
    return found


def constant_queries(sample: Sample) -> tuple[float, int]:
    """Share of the queries whose scored candidates all have one logit, and how many have two or more to compare."""
    rows = sample.rows
    logit = pc.coalesce(rows["fused_logit"], rows["logit"])
    grouped = pa.table({"query": rows["query_id"], "logit": logit}).group_by("query")
    spread = grouped.aggregate([("logit", "min"), ("logit", "max"), ("logit", "count")])
    several = spread.filter(pc.greater(spread["logit_count"], 1))
    if not several.num_rows:
        return 0.0, 0
    width = pc.subtract(several["logit_max"], several["logit_min"])
    return pc.sum(pc.less(width, CONSTANT)).as_py() / several.num_rows, several.num_rows


def tag_counts(sample: Sample, name: str) -> Counter[str]:
    """How many rows have each value of a tag."""
    counted = pc.value_counts(sample.rows[name].drop_null())
    return Counter({str(one["values"]): one["counts"] for one in counted.to_pylist()})


def tag_share(sample: Sample, name: str) -> float | None:
    """Share of the tagged rows for which a tag is true; None without tags."""
    share = pc.mean(pc.cast(sample.rows[name], pa.int8())).as_py()
    return None if share is None else float(share)


def entities_per_passage(sample: Sample) -> float | None:
    """Mean number of entities that a tagged row names; None without tags."""
    mean = pc.mean(pc.list_value_length(sample.rows["entities"])).as_py()
    return None if mean is None else float(mean)
