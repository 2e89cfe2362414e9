"""A small published run, made by the store itself and without a night."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.nightly.prepare import Run
from pipelines.nightly.queries import merge_queries
from pipelines.nightly.sinks import file_name, write_lists, write_table
from pipelines.nightly.verify import read_staged, table_info
from pipelines.storage import runs
from pipelines.storage.publish import publish
from rerank_core.text import query_id
from schemas.manifest import Balance, FileInfo, Manifest, TableInfo, file_info, to_json
from schemas.tables import TABLES

RUN_DATE = "2026-03-08"


def publish_run(
    output: Path, *, run_id: str, queries: int = 60, shards: int = 3, results: int = 4
) -> Manifest:
    """Publish `queries` lists of `results` rows each, in `shards` files, by the writers of a night."""
    run = Run(run_id, RUN_DATE, None, runs.staging(str(output), run_id), None)
    for shard in range(shards):
        numbers = [n for n in range(queries) if int(query_id(text(n)), 16) % shards == shard]
        rows = pa.Table.from_pylist(_rows(run_id, numbers, results), schema=TABLES["reranked"])
        counts = {query_id(text(number)): number + 1 for number in numbers}
        write_lists(run, file_name(shard, shards), rows, counts)
    merge_queries(run)
    return publish_staged(output, run, queries=queries)


def publish_staged(output: Path, run: Run, *, queries: int) -> Manifest:
    """Publish what stands in staging of `reranked` and `queries`, the other tables empty."""
    for name in TABLES.keys() - {"reranked", "queries"}:
        write_table(run, name, file_name(0, 1), TABLES[name].empty_table())
    tables = {name: table_info(run, name, every) for name, every in read_staged(run).items()}
    return publish(str(output), _manifest(run.run_id, tables, queries=queries))


def rewrite(output: Path, manifest: Manifest, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Publish a table with other rows: each file is changed, and its size and checksum in the manifest with it."""
    info, files = manifest.tables[table], dict[str, FileInfo]()
    for path in sorted((output / info.path).glob("*.parquet")):
        pq.write_table(change(pq.ParquetFile(path).read()), path)
        files[path.name] = file_info(path.read_bytes())
    whole = dataclasses.replace(
        manifest, tables=manifest.tables | {table: dataclasses.replace(info, files=files)}
    )
    (output / runs.manifest_path(manifest.run_date, manifest.run_id)).write_text(to_json(whole))


def text(number: int) -> str:
    """The text of a query."""
    return f"what is query number {number}"


def score(run_id: str, number: int, rank: int) -> float:
    """A score that no two runs share."""
    return round(1 / (rank + number % 7 + len(run_id)), 6)


def _rows(run_id: str, numbers: Iterable[int], results: int) -> list[dict[str, object]]:
    return [
        {
            **blank_row(),
            "query_id": query_id(text(number)),
            "query": text(number),
            "doc_id": f"d{rank}",
            "passage_id": f"d{rank}#0",
            "rank": rank,
            "score": score(run_id, number, rank),
        }
        for number in sorted(numbers, key=lambda number: query_id(text(number)))
        for rank in range(1, results + 1)
    ]


def blank_row() -> dict[str, object]:
    """A row of `reranked` that says nothing, and is fresh."""
    return {field.name: _blank(field.type) for field in TABLES["reranked"]} | {"stale_since": None}


def _blank(kind: pa.DataType) -> object:
    if pa.types.is_list(kind):
        return []
    return "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0


def _manifest(run_id: str, tables: dict[str, TableInfo], *, queries: int) -> Manifest:
    needed = (field.name for field in dataclasses.fields(Manifest) if field.default is dataclasses.MISSING)
    empty: dict[str, object] = {name: {} for name in needed}
    balance = Balance({"read": 0}, {"read": queries, "published": queries}, {"read": 0})
    known = {
        "run_id": run_id,
        "run_date": RUN_DATE,
        "created_at": f"{RUN_DATE}T03:00:00+00:00",
        "window": None,
        "nightrank_version": "0",
        "previous_run_id": None,
        "model_fingerprint": "m",
        "tagger_fingerprint": None,
        "balance": balance,
        "tables": tables,
        "seconds": 1.0,
    }
    return Manifest(**{**empty, **known})  # type: ignore[arg-type]
