"""Ranking quality of a published night over judgements: BM25's order and the reranked one, from the rows it wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow.compute as pc

from pipelines.evaluate.systems import LoadedSystem
from pipelines.storage import runs as stored_runs
from pipelines.storage.filesystem import files, join, open_binary, read_table
from pipelines.storage.parquet import damage, open_parquet
from rerank_core.config.backends import gives_cosines
from rerank_core.config.night import Evaluation, Scoring
from rerank_core.errors import ConfigError, JudgementError
from rerank_core.evaluation.comparison import Order, SetResult, judged_orders, measure_system
from rerank_core.evaluation.measures import Level, means, measure_by_query
from rerank_core.evaluation.qrels import Qrels, by_query_id, read_qrels, read_queries, read_sentence_qrels
from rerank_core.evaluation.significance import mean_interval
from rerank_core.text import query_id
from schemas.manifest import Manifest

Rows = list[dict[str, Any]]

NIGHTS_SYSTEMS = ("bm25", "reranked")
"""Names of a night's two orders."""

GAIN = "nDCG@10"
"""The measure whose gain over BM25 has an interval."""

COLUMNS = (
    "query_id",
    "doc_id",
    "passage_id",
    "rank",
    "rank_before",
    "bm25_score",
    "logit",
    "overflow_tokens",
)


class JudgedRun(NamedTuple):
    """A published run and its judgements."""

    output: str
    queries: str  # BEIR's queries.jsonl
    qrels: str  # of documents, or at level "unit" of sentences
    run_id: str = ""  # "" is the newest
    level: Level = "document"
    min_relevance: int = 1


def read_judgements(config: Evaluation) -> dict[Level, Qrels]:
    """Judgements by level, keyed by Nightrank's query ids; empty if none are configured.

    Raises:
        ConfigError: judgements are configured without their queries.
        JudgementError: a configured file cannot be used, or judges none of the configured queries.
    """
    if not config.queries:
        if config.qrels or config.sentence_qrels:
            raise ConfigError("judgements need evaluation.queries, the queries.jsonl that they are of")
        return {}
    queries = read_queries(config.queries, opener=open_binary)
    levels: tuple[tuple[Level, str, Callable[..., Qrels]], ...] = (
        ("document", config.qrels, read_qrels),
        ("unit", config.sentence_qrels, read_sentence_qrels),
    )
    judged: dict[Level, Qrels] = {}
    for level, path, read in levels:
        if path:
            judged[level] = by_query_id(queries, read(path, opener=open_binary))
            if not judged[level]:
                raise JudgementError(
                    f"{path} judges no query of {config.queries}; check that both are of the same set and split"
                )
    return judged


def before_and_after(
    staging: str, judged: dict[Level, Qrels], *, whole_lists: bool = True
) -> dict[str, dict[str, float]]:
    """Measures before (BM25) and after reranking by level, over the judged queries that the log asked.

    Beside them the gain in nDCG@10, the mean over these queries of after minus before, with its 95 % confidence
    interval. A judged query that was asked but could not be reranked counts as zero on both sides.

    Args:
        staging: the folder of the run's tables.
        judged: judgements by level.
        whole_lists: whether the tables hold every candidate. Without BM25's documents below ranking.top_n its order is
            not known, and neither is the gain.
    """
    metrics: dict[str, dict[str, float]] = {}
    letters = files(join(staging, "dead_letters"), "part-*.parquet")
    for level, qrels in judged.items():
        rows, asked = _read_rows(_places(staging, qrels), letters, qrels)
        if not asked or (level == "unit" and not _has_units(rows)):
            continue
        relevant = {query: qrels[query] for query in sorted(asked)}
        before, after = (measure_by_query(named(order), relevant) for order in orders_of(rows, level=level))
        metrics[level] = {"queries": float(len(relevant))}
        if whole_lists:
            metrics[level] |= {f"before {name}": value for name, value in means(before).items()}
        metrics[level] |= {f"after {name}": value for name, value in means(after).items()}
        if whole_lists:
            metrics[level] |= _gain(before[GAIN], after[GAIN])
    return metrics


def named(orders: dict[str, Order]) -> dict[str, list[str]]:
    """The items of each query's order, without their scores."""
    return {query: [item for item, _ in order] for query, order in orders.items()}


def _gain(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The mean change of a measure, and the ends of its interval if there are queries enough for one."""
    changes = [after[query] - before[query] for query in before]
    gain = {f"gain {GAIN}": math.fsum(changes) / len(changes)}
    if interval := mean_interval(changes):
        gain |= {f"gain {GAIN} low": interval[0], f"gain {GAIN} high": interval[1]}
    return gain


def evaluate_run(run: JudgedRun, others: Sequence[LoadedSystem] = ()) -> SetResult:
    """Measure a published run over the judged queries that its log asked.

    Args:
        run: the run.
        others: run files to measure beside it; their query ids are the judgements' own, or Nightrank's.

    Raises:
        ManifestError: no such run, or a damaged one.
        JudgementError: judgements that cannot be used, or that judge nothing of the run.
    """
    manifest = stored_runs.open_run(run.output, run.run_id)
    rows, qrels, failed = _read(run, manifest)
    orders = dict(zip(NIGHTS_SYSTEMS, orders_of(rows, level=run.level), strict=True))
    relevant = {
        (q, item) for q, grades in qrels.items() for item in grades if grades[item] >= run.min_relevance
    }
    ranked = {(query, item) for query, order in orders["reranked"].items() for item, _ in order}
    notes = []
    if cut := manifest.balance.pairs.get("below_top_n", 0):
        del orders["bm25"]
        notes.append(
            "BM25's order is left out: the run published only the best documents of each query, "
            f"{cut:,} pairs fewer than it ranked"
        )
    own_names = _own_names(run) if others else {}
    for other in others:
        by_id = {own_names.get(query, query): scores for query, scores in (other.run or {}).items()}
        file_names = f"{other.system.path} and run {manifest.run_id}"
        orders[other.system.name] = judged_orders(by_id, qrels, files=file_names)
    has_logits = not gives_cosines(stored_runs.section(manifest, Scoring, "scoring").backend)
    systems = {
        name: measure_system(
            order, qrels=qrels, min_relevance=run.min_relevance, logits=has_logits and name == "reranked"
        )
        for name, order in orders.items()
    }
    truncated = sum(row["overflow_tokens"] > 0 for row in rows)
    systems["reranked"] = systems["reranked"]._replace(failed=failed, truncated=truncated)
    return SetResult(
        name=f"night {manifest.run_date}",
        level=run.level,
        candidates="what the run published",
        fingerprint=manifest.run_id,
        queries=len(qrels),
        types={},
        candidate_recall=len(relevant & ranked) / len(relevant),
        counts={},
        systems=systems,
        notes=tuple(notes),
    )


def orders_of(rows: Rows, *, level: Level) -> tuple[dict[str, Order], dict[str, Order]]:
    """BM25's order and the reranked one, from rows of the table `reranked`; a document's best unit counts.

    Args:
        rows: with COLUMNS.
        level: what is ranked: documents, or units.
    """
    item = "passage_id" if level == "unit" else "doc_id"
    before, after = (
        _first_of_each(rows, item=item, rank=rank, score=score)
        for rank, score in (("rank_before", "bm25_score"), ("rank", "logit"))
    )
    return before, after


def _first_of_each(rows: Rows, *, item: str, rank: str, score: str) -> dict[str, Order]:
    scores: dict[str, dict[str, float | None]] = {}
    for row in sorted(rows, key=lambda row: (row["query_id"], row[rank])):
        scores.setdefault(row["query_id"], {}).setdefault(row[item], row[score])
    return {query: list(items.items()) for query, items in scores.items()}


def _has_units(rows: Rows) -> bool:
    """Whether units smaller than passages were ranked: sentence judgements do not apply to whole passages."""
    return any(row["passage_id"] != row["doc_id"] for row in rows)


def _read(run: JudgedRun, manifest: Manifest) -> tuple[Rows, Qrels, int]:
    """The rows of judged queries, their judgements, and how many of their pairs could not be scored."""
    kind = "sentence_qrels" if run.level == "unit" else "qrels"
    judged = read_judgements(Evaluation(**{"queries": run.queries, kind: run.qrels}))[run.level]
    reranked, letters = (
        stored_runs.table_files(run.output, manifest, table) for table in ("reranked", "dead_letters")
    )
    rows, asked = _read_rows(dict.fromkeys(reranked), letters, judged)
    if run.level == "unit" and not _has_units(rows):
        raise JudgementError(
            f"run {manifest.run_id} ranked whole passages, to which judged sentences do not apply; use --level document"
        )
    qrels = {
        query: {item: max(0, grade) for item, grade in judged[query].items()}
        for query in sorted(asked)
        if max(judged[query].values()) >= run.min_relevance
    }
    if not qrels:
        raise JudgementError(
            f"{run.qrels} has nothing relevant for any query of run {manifest.run_id}; check that the judged queries "
            "are in its log"
        )
    failed = 0
    for path in letters:
        for letter in read_table(path, ["unit", "stage", "record"]).to_pylist():
            if (letter["unit"], letter["stage"]) == ("pair", "ScoreCandidates"):
                failed += letter["record"].partition("/")[0] in qrels
    return [row for row in rows if row["query_id"] in qrels], qrels, failed


def _places(staging: str, qrels: Qrels) -> dict[str, list[int]]:
    """The files of `reranked` that hold rows of judged queries, and their row groups, as the table `queries` says."""
    found: dict[str, set[int]] = {}
    judged = pc.field("query_id").isin(sorted(qrels))
    for path in files(join(staging, "queries"), "part-*.parquet"):
        for row in read_table(path, ["query_id", "part", "row_group"]).filter(judged).to_pylist():
            found.setdefault(join(staging, "reranked", row["part"]), set()).add(row["row_group"])
    return {path: sorted(groups) for path, groups in sorted(found.items())}


def _read_rows(
    reranked: Mapping[str, Sequence[int] | None], dead_letters: Sequence[str], qrels: Qrels
) -> tuple[Rows, set[str]]:
    """Rows of the judged queries, and which of these the log asked: published or in the dead letters.

    Args:
        reranked: files, and the row groups of each that are read; None: all.
    """
    rows: Rows = []
    judged = pc.field("query_id").isin(sorted(qrels))
    for path, groups in reranked.items():
        file = open_parquet(path)
        with damage(path):
            wanted = range(file.num_row_groups) if groups is None else groups
            table = file.read_row_groups(list(wanted), columns=list(COLUMNS), use_threads=False)
        rows += table.filter(judged).to_pylist()
    asked = {str(row["query_id"]) for row in rows}
    for path in dead_letters:
        letters = read_table(path, ["unit", "record"]).filter(pc.field("unit") == "query")
        asked |= qrels.keys() & set(letters["record"].to_pylist())
    return rows, asked


def _own_names(run: JudgedRun) -> dict[str, str]:
    """Nightrank's query ids by the judgements' own."""
    queries = read_queries(run.queries, opener=open_binary)
    return {name: query_id(query.text) for name, query in queries.items()}
