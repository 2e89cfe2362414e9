"""The last published night, as a candidate is measured against it: its time, and a sample of its lists."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

from pipelines.evaluate.scores import Count, fuse_groups, score_by_mode
from pipelines.evaluate.systems import LoadedSystem
from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from rerank_core.candidates.decomposition import decompose
from rerank_core.config.night import Config
from rerank_core.config.operation import Plan
from rerank_core.config.source import Candidates
from rerank_core.drift.ranks import overlap_at, rank_correlation
from rerank_core.promotion.rules import LastNight, Rankings
from rerank_core.ranking.order import rank
from rerank_core.text import fingerprint
from schemas.manifest import Manifest
from schemas.records import Candidate, Query, QueryGroup, ScoredCandidate
from schemas.tags import Tags

SAMPLE, SAMPLE_FILES, TOP = 100, 8, 10
"""Lists of a night that are scored again, from so many of its files; and the part of a list that readers see."""

COLUMNS = [
    "query_id",
    "query",
    "doc_id",
    "passage_id",
    "title",
    "text",
    "rank",
    "doc_rank_before",
    "bm25_score",
    "logit",
    "cheap_score",
    "stale_since",
    *Tags._fields,
]
Rows = list[dict[str, Any]]


def find(config: Config) -> Manifest | None:
    """The newest published night; None if there is none.

    Raises:
        ManifestError: it is damaged.
    """
    return stored_runs.latest(config.output.path) if config.output.path else None


def load_of(manifest: Manifest, plan: Plan) -> LastNight:
    """What a night took, and the time that it had until plan.finish_by."""
    scoring, pairs = manifest.stages.get("ScoreCandidates", {}), manifest.balance.pairs
    total = sum(tally.get("seconds", 0.0) for tally in manifest.stages.values())
    return LastNight(
        run_id=manifest.run_id,
        seconds=manifest.seconds,
        scoring_seconds=scoring.get("seconds", 0.0),
        workers=max(1.0, total / max(1e-9, manifest.seconds)),
        fresh_pairs=int(scoring.get("in", 0)),
        pairs=pairs.get("published", 0) + pairs.get("reused", 0) + pairs.get("below_top_n", 0),
        until_deadline=until_deadline(manifest, plan),
    )


def until_deadline(manifest: Manifest, plan: Plan) -> float | None:
    """Seconds from a night's start to the next time of day of plan.finish_by; None without one."""
    if not plan.finish_by:
        return None
    zone = zoneinfo.ZoneInfo(plan.time_zone)
    end = datetime.datetime.fromisoformat(manifest.created_at)
    started = (end - datetime.timedelta(seconds=manifest.seconds)).astimezone(zone)
    hour, minute = map(int, plan.finish_by.split(":"))
    day = started.date()
    deadline = datetime.datetime.combine(day, datetime.time(hour, minute), zone)
    if deadline <= started:
        day += datetime.timedelta(days=1)
        deadline = datetime.datetime.combine(day, datetime.time(hour, minute), zone)
    return deadline.timestamp() - started.timestamp()


def compare(
    config: Config, manifest: Manifest, system: LoadedSystem, *, on_scored: Count = lambda pairs: None
) -> Rankings:
    """Score a sample of a night's lists by another model, and compare the orders.

    Raises:
        ManifestError: the night is damaged.
        ScoringFailed: the model is broken.
    """
    lists = _sample(config.output.path, manifest)
    if any(row["text"] is None for rows in lists for row in rows):
        why = f"run {manifest.run_id} has no texts (output.store_text = false)"
        return Rankings(0, None, None, skipped=why)
    units = stored_runs.section(manifest, Candidates, "candidates")
    groups = [_group(rows, parts=units.score_parts) for rows in lists]
    system = system._replace(tag_modes=system.tag_modes[:1])
    orders: dict[str, list[str]] = {}
    for scored in score_by_mode(groups, system, on_scored=on_scored):
        for group in map(rank, fuse_groups(scored.groups, system)):
            orders[group.query.query_id] = [c.scored.candidate.passage_id for c in group.candidates]
    overlaps, correlations = [], []
    for rows in lists:
        published = [row["passage_id"] for row in rows]
        order = orders.get(rows[0]["query_id"], [])
        if len(published) > TOP:
            overlaps.append(overlap_at(published, order, TOP))
        if (tau := rank_correlation(published, order)) is not None:
            correlations.append(tau)
    if not overlaps and not correlations:
        return Rankings(0, None, None, skipped=f"run {manifest.run_id} has no list of two scored passages")
    return Rankings(len(lists), _mean(overlaps), _mean(correlations))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _sample(output: str, manifest: Manifest) -> list[Rows]:
    """The rows of some queries that the night scored, each query's by rank, chosen by a hash of the run and the query.

    Lists that the deadline left as they were may be of another model.
    """
    files = stored_runs.table_files(output, manifest, "reranked")
    files = sorted(files, key=lambda path: fingerprint(manifest.run_id, path.rpartition("/")[2]))[
        :SAMPLE_FILES
    ]
    by_query: dict[str, Rows] = {}
    for path in files:
        for row in filesystem.read_table(path, COLUMNS).to_pylist():
            if row["logit"] is not None and not row.get(
                "stale_since"
            ):  # the cascade's pruned ones have no place among the scored ones
                by_query.setdefault(row["query_id"], []).append(row)
    chosen = sorted(by_query, key=lambda query: fingerprint(manifest.run_id, query))[:SAMPLE]
    return [sorted(by_query[query], key=lambda row: row["rank"]) for query in chosen]


def _group(rows: Rows, *, parts: bool) -> QueryGroup:
    """A published list as it was before it was scored."""
    text = rows[0]["query"]
    candidates = (
        ScoredCandidate(
            Candidate(
                row["doc_id"],
                row["passage_id"],
                row["title"] or "",
                row["text"],
                row["bm25_score"],
                row["doc_rank_before"],
            ),
            tags=Tags.from_row(row),
            fingerprint="",
            logit=None,
            reused=False,
            overflow=0,
            first_stage=row["cheap_score"],
        )
        for row in rows
    )
    query = Query(rows[0]["query_id"], text, 1, 0, ())
    return QueryGroup(query, tuple(candidates), decompose(text) if parts else ())
