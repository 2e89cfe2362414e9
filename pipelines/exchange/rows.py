"""What a published run holds, a query at a time. In memory is one shard: a file of each table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from rerank_core.training.groups import check_version
from schemas.errors import ManifestError
from schemas.manifest import Manifest

Row = dict[str, Any]
Side = Literal["reranked", "bm25"]
"""The two orders of a list."""

_LIST = (
    *("query_id", "query", "doc_id", "passage_id", "title", "text", "rank", "rank_before"),
    *("bm25_score", "logit", "fused_logit"),
)
_GROUP = (
    *("query_id", "query", "positive_id", "positive", "positive_logit"),
    *("negative_id", "negative", "negative_logit"),
)


class RankedList(NamedTuple):
    """A query's published units, in no particular order."""

    query_id: str
    query: str
    rows: list[Row]


class Example(NamedTuple):
    """A query, a positive and its negatives, of `hard_negatives` or of a file of another tool."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    logits: tuple[float, ...] = ()  # of the positive and then of each negative; () if unknown
    query_id: str = ""
    ids: tuple[str, ...] = ()  # likewise; () if unknown


def lists(output: str, manifest: Manifest) -> Iterator[RankedList]:
    """Every query of `reranked`.

    Raises:
        ManifestError: the run has no such table, or it is damaged.
    """
    for (query_id, query), rows in _by_query(output, manifest, "reranked", _LIST):
        yield RankedList(query_id, query, list(rows))


def examples(output: str, manifest: Manifest) -> Iterator[Example]:
    """Every positive of `hard_negatives` with its negatives, in the table's order.

    Raises:
        ManifestError: the run has no such table, or it is damaged.
    """
    for (query_id, query), rows in _by_query(output, manifest, "hard_negatives", _GROUP):
        of_positive: dict[str, list[Row]] = {}
        for row in rows:
            of_positive.setdefault(row["positive_id"], []).append(row)
        for positive_id, found in of_positive.items():
            yield Example(
                query,
                found[0]["positive"],
                tuple(row["negative"] for row in found),
                (found[0]["positive_logit"], *(row["negative_logit"] for row in found)),
                query_id,
                (positive_id, *(row["negative_id"] for row in found)),
            )


def ordered(found: RankedList, side: Side, *, by: Literal["doc_id", "passage_id"]) -> list[tuple[Row, float]]:
    """A list's documents (by their best unit) or units, best first, with strictly falling float32 scores.

    Tools that read a list sort it by score, and break ties in ways of their own. So a score that is not below the one
    before it, and that of a pair which was pruned, is replaced by the next lower float32.
    """
    rank = {"reranked": "rank", "bm25": "rank_before"}[side]
    first: dict[str, Row] = {}
    for row in sorted(found.rows, key=lambda row: row[rank]):
        first.setdefault(row[by], row)
    scored: list[tuple[Row, float]] = []
    last = np.float32(np.inf)
    for row in first.values():
        score = _score(row, side)
        below = np.nextafter(last, np.float32(-np.inf)) if np.isfinite(last) else np.float32(0)
        last = np.float32(score) if score is not None and score < last else below
        scored.append((row, float(last)))
    return scored


def _score(row: Row, side: Side) -> float | None:
    if side == "bm25":
        return float(row["bm25_score"])
    score = row["fused_logit"] if row["fused_logit"] is not None else row["logit"]
    return None if score is None else float(score)


def _by_query(
    output: str, manifest: Manifest, table: str, columns: Iterable[str]
) -> Iterator[tuple[tuple[str, str], Iterator[Row]]]:
    if table not in manifest.tables:
        raise ManifestError(
            f"run {manifest.run_id} in {output} has no table {table}"
            + ("; turn mining.enabled on for a night" if table == "hard_negatives" else "")
        )
    for path in stored_runs.table_files(output, manifest, table):
        file = filesystem.open_parquet(path)
        check_version(file.schema_arrow, table, name=path)
        rows = filesystem.read_table(path, list(columns)).to_pylist()
        rows.sort(key=lambda row: row["query_id"])  # stable: a query's rows keep their order
        yield from itertools.groupby(rows, key=lambda row: (row["query_id"], row["query"]))
