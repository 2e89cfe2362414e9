"""The files of `nightrank evaluate`: all figures as JSON, and a row for each set, system and query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage import filesystem
from pipelines.storage.object_stores import check_installed
from rerank_core.errors import ConfigError
from rerank_core.evaluation import measures
from rerank_core.evaluation.comparison import Result, SetResult, SystemResult

PER_QUERY = {"nDCG@10": "nDCG@10", "MAP": "AP", "MRR@10": "RR@10", "R@10": "R@10"}
"""Names of the measures of a single query."""


def as_json(result: Result) -> dict[str, Any]:
    """All of it as plain data: `figures` maps flat names "SET/SYSTEM/measure" to numbers, 0 to 1, or None."""
    figures: dict[str, float | None] = {}
    for judged in result.sets:
        figures[f"{judged.name}/queries"] = judged.queries
        figures[f"{judged.name}/relevant_among_candidates"] = judged.candidate_recall
        figures |= {f"{judged.name}/{what}": count for what, count in judged.counts.items()}
        for name, system in judged.systems.items():
            figures |= {f"{judged.name}/{name}/{what}": v for what, v in _figures(judged, system).items()}
    for measure, verdicts in result.verdicts.items():
        for (set_name, name), verdict in verdicts.items():
            figures |= {f"{set_name}/{name}/{measure}/{what}": v for what, v in verdict._asdict().items()}
    fingerprints = {f"set {judged.name}": judged.fingerprint for judged in result.sets}
    return {
        "figures": figures,
        "baselines": result.baselines,
        "tags": {
            name: next(iter(system.by_tags))
            for judged in result.sets
            for name, system in judged.systems.items()
            if system.by_tags
        },
        "fingerprints": fingerprints | result.fingerprints,
        "settings": result.settings,
    }


def _figures(judged: SetResult, system: SystemResult) -> dict[str, float | None]:
    counts = {
        "pairs": sum(system.pairs.values()),
        **{what: getattr(system, what) for what in ("missing", "failed", "truncated", "unscored")},
    }
    by_type = {
        f"type={kind}/{measure}": value
        for kind, values in means_by_type(judged, system).items()
        for measure, value in values.items()
    }
    by_tags = {f"tags={mode}/MAP": value for mode, value in system.by_tags.items()}
    return {**system.means, "F1": system.f1, "AUC": system.auc, **counts, **by_type, **by_tags}


def means_by_type(judged: SetResult, system: SystemResult) -> dict[str, dict[str, float]]:
    """Means over the queries of each type, and their number as "queries"; {} if queries have no types."""
    kinds: dict[str, list[str]] = {}
    for query in sorted(judged.types):
        kinds.setdefault(judged.types[query], []).append(query)
    return {
        kind: {
            "queries": float(len(queries)),
            **measures.means({m: {q: v[q] for q in queries} for m, v in system.by_query.items()}),
        }
        for kind, queries in sorted(kinds.items())
    }


def per_query(result: Result) -> list[dict[str, Any]]:
    """A row for each set, system and query."""
    return [
        {
            "set": judged.name,
            "system": name,
            "query_id": query,
            "type": judged.types.get(query, ""),
            **{column: system.by_query[measure][query] for measure, column in PER_QUERY.items()},
            "pairs": system.pairs.get(query, 0),
        }
        for judged in result.sets
        for name, system in judged.systems.items()
        for query in next(iter(system.by_query.values()))
    ]


def check_targets(*paths: str | Path | None) -> None:
    """Refuse a file that cannot be written, before hours of scoring rather than after.

    Raises:
        ConfigError: its folder does not exist, or it is in an object store whose client is not installed.
    """
    for path in map(str, filter(None, paths)):
        if not filesystem.is_local(path):
            check_installed(path)
        elif not (folder := Path(path).absolute().parent).is_dir():
            raise ConfigError(f"cannot write {path}: there is no folder {folder}; create it")


def write_json(result: Result, path: str | Path) -> None:
    """Write `as_json`."""
    text = json.dumps(as_json(result), indent=2, ensure_ascii=False) + "\n"
    _write(str(path), text.encode())


def write_per_query(result: Result, path: str | Path) -> None:
    """Write `per_query`, as Parquet if the name ends in .parquet, else as JSON Lines."""
    rows = per_query(result)
    if str(path).endswith(".parquet"):
        written = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), written, compression="zstd")
        data = written.getvalue().to_pybytes()
    else:
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    _write(str(path), data)


def _write(path: str, data: bytes) -> None:
    if filesystem.is_local(path):
        Path(path).write_bytes(data)  # not by a rename: it may be /dev/stdout, or a pipe
    else:
        filesystem.write_bytes(path, data)
