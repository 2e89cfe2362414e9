"""Look-ups in a published run: one query's list."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import pyarrow.compute as pc

from pipelines.storage import filesystem, runs
from rerank_core.errors import QueryNotFound
from rerank_core.text import normalise_query, query_id, shorten
from schemas.manifest import Manifest


class QueryList(NamedTuple):
    """One query's published rows, best first."""

    query: str
    run_id: str
    run_date: str
    rows: list[dict[str, Any]]


def read_query(output: str, query: str, *, run_id: str = "") -> QueryList:
    """Rows of `reranked` for one query, by its text as a user would type it.

    Raises:
        ManifestError: nothing was published there, or the run is damaged.
        QueryNotFound: the run does not have the query.
    """
    manifest = runs.open_run(output, run_id)
    files = runs.table_files(output, manifest, "reranked")
    for path in files:
        rows = filesystem.read_table(path).filter(pc.field("query_id") == query_id(query)).to_pylist()
        if rows:
            rows.sort(key=lambda row: row["rank"])
            return QueryList(rows[0]["query"], manifest.run_id, manifest.run_date, rows)
    raise QueryNotFound(_not_found(files, query, manifest))


def _not_found(files: list[str], query: str, manifest: Manifest) -> str:
    known: set[str] = set()
    for path in files:
        known.update(filesystem.read_table(path, ["query"])["query"].unique().to_pylist())
    near = difflib.get_close_matches(normalise_query(query), sorted(known), n=3, cutoff=0.3)
    hint = f"; the nearest are {', '.join(map(repr, near))}" if near else ""
    return f"run {manifest.run_id} has no query {shorten(query, limit=80)!r}{hint}"
