"""What `nightrank evaluate` writes: flat figures as JSON, and a row a set, system and query in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_core.errors import ConfigError
from rerank_core.evaluation import measures
from rerank_core.evaluation.comparison import Measured, Result, SetResult

PER_QUERY = {"nDCG@10": "nDCG@10", "MAP": "AP", "MRR@10": "RR@10", "R@10": "R@10"}
"""What a measure is called where it is of one query."""


def plain(result: Result, *, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything as plain data: `figures` are flat "SET/SYSTEM/measure" names to numbers, 0 to 1, or null."""
    figures: dict[str, float | None] = {}
    for one in result.sets:
        figures[f"{one.name}/queries"] = one.queries
        figures[f"{one.name}/relevant_among_candidates"] = one.reach
        figures |= {f"{one.name}/{what}": count for what, count in one.counts.items()}
        for system, found in one.systems.items():
            figures |= {f"{one.name}/{system}/{what}": value for what, value in _figures(one, found).items()}
    for measure, verdicts in result.verdicts.items():
        for (name, system), verdict in verdicts.items():
            figures |= {
                f"{name}/{system}/{measure}/{what}": value for what, value in verdict._asdict().items()
            }
    fingerprints = {f"set {one.name}": one.fingerprint for one in result.sets} | result.fingerprints
    return {
        "figures": figures,
        "baselines": result.baselines,
        "tags": {
            s: next(iter(m.by_tags)) for one in result.sets for s, m in one.systems.items() if m.by_tags
        },
        "fingerprints": fingerprints,
        "settings": dict(settings),
    }


def _figures(one: SetResult, found: Measured) -> dict[str, float | None]:
    counts = {
        "pairs": sum(found.pairs.values()),
        **{what: getattr(found, what) for what in ("missing", "failed", "truncated", "unscored")},
    }
    by_type = {
        f"type={kind}/{measure}": value
        for kind, values in means_by_type(one, found).items()
        for measure, value in values.items()
    }
    by_tags = {f"tags={mode}/MAP": value for mode, value in found.by_tags.items()}
    return {**found.means, "F1": found.f1, "AUC": found.auc, **counts, **by_type, **by_tags}


def means_by_type(one: SetResult, found: Measured) -> dict[str, dict[str, float]]:
    """The means over the queries of each type, and their number under "queries"; {} where queries have none."""
    kinds: dict[str, list[str]] = {}
    for query in sorted(one.types):
        kinds.setdefault(one.types[query], []).append(query)
    return {
        kind: {
            "queries": float(len(queries)),
            **measures.means({m: {q: v[q] for q in queries} for m, v in found.by_query.items()}),
        }
        for kind, queries in sorted(kinds.items())
    }


def per_query(result: Result) -> list[dict[str, Any]]:
    """A row a set, system and query."""
    return [
        {
            "set": one.name,
            "system": system,
            "query_id": query,
            "type": one.types.get(query, ""),
            **{name: found.by_query[measure][query] for measure, name in PER_QUERY.items()},
            "pairs": found.pairs.get(query, 0),
        }
        for one in result.sets
        for system, found in one.systems.items()
        for query in next(iter(found.by_query.values()))
    ]


def check_targets(*paths: Path | None) -> None:
    """Refuse a file that cannot be written, before hours of scoring rather than after.

    Raises:
        ConfigError: its folder is not there.
    """
    for path in paths:
        if path and not path.absolute().parent.is_dir():
            raise ConfigError(
                f"cannot write {path}: there is no folder {path.absolute().parent}; make it first"
            )


def write_per_query(result: Result, path: Path) -> None:
    """Write `per_query`: Parquet where the name ends so, else JSON Lines."""
    rows = per_query(result)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
    else:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text("".join(lines), encoding="utf-8")
