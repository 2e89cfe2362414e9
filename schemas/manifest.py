"""The manifest of a run. It is written last: a run without a manifest was never published."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from schemas.errors import ManifestError

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class TableInfo:
    """One published table."""

    path: str  # folder of its Parquet files, relative to the output folder
    schema_version: int
    files: int
    rows: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Balance:
    """What became of every record. Nothing is published unless `read` is the sum of the others."""

    # read = kept + outside_window + rejected + below_min_count + below_min_users + capped (too many of one user)
    events: dict[str, int]
    # read = published + rejected
    queries: dict[str, int]
    # read = published + reused + pruned + rejected + below_top_n
    pairs: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """One run. `stages` holds records in, out and rejected and the seconds spent, summed over workers."""

    run_id: str
    run_date: str
    created_at: str  # UTC, the moment of publishing
    nightrank_version: str
    config: dict[str, Any]
    source: dict[str, Any]
    window: tuple[str, str] | None  # [start, end), UTC; None for a log without times
    previous_run_id: str | None
    model_fingerprint: str
    tagger_fingerprint: str | None
    stages: dict[str, dict[str, float]]
    balance: Balance
    mining: dict[str, dict[str, int]]  # kept and rejected, by rule
    degraded: dict[str, int | str]  # what was done less well than configured: a count, or an explanation
    rejected: dict[str, int]  # dead letters by stage and reason
    metrics: dict[str, dict[str, float]]  # before and after reranking, on the judgements; empty without
    tables: dict[str, TableInfo]
    seconds: float  # wall time of the run
    facts_fingerprint: str | None = None  # of the tagger's reading of passages, for reuse; None without tags
    cascade: dict[str, Any] | None = (
        None  # the rule, its sample and its loss of nDCG@10; None without a cascade
    )
    # By rank of the logged result lists: propensity ("examined") and impressions; None without labels.debias
    places: list[dict[str, float]] | None = None
    calibration: dict[str, Any] | None = None  # as it was fitted; None: scores are sigmoids of the logits
    fusion: dict[str, Any] | None = None  # weights as they were fitted; None: ranked by the logit alone
    format: int = FORMAT


def to_json(manifest: Manifest) -> str:
    """The manifest as readable JSON."""
    return json.dumps(dataclasses.asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def from_json(text: str, *, name: str = "manifest") -> Manifest:
    """Read a manifest back.

    Raises:
        ManifestError: not JSON, another format, or fields missing.
    """
    try:
        raw = json.loads(text)
        if raw["format"] != FORMAT:
            raise ManifestError(f"{name} has format {raw['format']!r}; this version reads format {FORMAT}")
        raw["balance"] = Balance(**raw["balance"])
        raw["tables"] = {table: TableInfo(**info) for table, info in raw["tables"].items()}
        raw["window"] = tuple(raw["window"]) if raw["window"] else None
        return Manifest(**raw)
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{name} is damaged ({error}); do not use its run, and publish it again"
        ) from None
