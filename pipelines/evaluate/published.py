"""A night's ranking quality over judgements, read back from the rows it wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.compute as pc

from pipelines.storage.filesystem import files, join, open_text, read_table
from rerank_core.config.night import Evaluation
from rerank_core.errors import ConfigError, JudgementError
from rerank_core.evaluation.measures import Level, compare, runs_from_rows
from rerank_core.evaluation.qrels import Qrels, by_query_id, read_qrels, read_queries, read_sentence_qrels

COLUMNS = ["query_id", "doc_id", "passage_id", "rank", "rank_before", "doc_rank", "doc_rank_before"]


def read_judgements(config: Evaluation) -> dict[Level, Qrels]:
    """Judgements by level, keyed by Nightrank's query ids; empty where none are configured.

    Raises:
        ConfigError: judgements are configured without the queries that they are of.
        JudgementError: a configured file cannot be used, or judges none of the configured queries.
    """
    if not config.queries:
        if config.qrels or config.sentence_qrels:
            raise ConfigError(
                "judgements need evaluation.queries, a BEIR queries.jsonl, to know what they judge"
            )
        return {}
    queries = read_queries(config.queries, opener=open_text)
    levels: tuple[tuple[Level, str, Callable[..., Qrels]], ...] = (
        ("document", config.qrels, read_qrels),
        ("unit", config.sentence_qrels, read_sentence_qrels),
    )
    judged: dict[Level, Qrels] = {}
    for level, path, read in levels:
        if path:
            judged[level] = by_query_id(queries, read(path, opener=open_text))
            if not judged[level]:
                raise JudgementError(
                    f"{path} judges no query of {config.queries}; are they of one set and split?"
                )
    return judged


def before_and_after(staging: str, judged: dict[Level, Qrels]) -> dict[str, dict[str, float]]:
    """Measures before (BM25) and after reranking by level, over the judged queries that were asked.

    A judged query that was asked but could not be reranked counts as zero on both sides.
    """
    metrics: dict[str, dict[str, float]] = {}
    reranked, letters = (
        files(join(staging, table), "part-*.parquet") for table in ("reranked", "dead_letters")
    )
    for level, qrels in judged.items():
        rows, asked = read_rows(reranked, letters, set(qrels))
        relevant = {query: qrels[query] for query in sorted(asked)}
        has_units = level == "document" or any(row["passage_id"] != row["doc_id"] for row in rows)
        if not relevant or not has_units:  # sentence judgements say nothing of whole passages
            continue
        runs = runs_from_rows(rows, level=level)
        found = compare(runs.before, runs.after, qrels=relevant)
        metrics[level] = {
            "queries": float(found.queries),
            **{f"before {name}": value for name, value in found.before.items()},
            **{f"after {name}": value for name, value in found.after.items()},
        }
    return metrics


def read_rows(
    reranked: Sequence[str],
    dead_letters: Sequence[str],
    wanted: set[str],
    *,
    columns: Sequence[str] = COLUMNS,
) -> tuple[list[dict[str, Any]], set[str]]:
    """Rows of the wanted queries, and which of those were asked: published or in the dead letters."""
    rows: list[dict[str, Any]] = []
    for path in reranked:
        judged = pc.field("query_id").isin(sorted(wanted))
        rows += read_table(path, list(columns)).filter(judged).to_pylist()
    asked = {str(row["query_id"]) for row in rows}
    for path in dead_letters:
        letters = read_table(path, ["unit", "record"]).filter(pc.field("unit") == "query")
        asked |= wanted & set(letters["record"].to_pylist())
    return rows, asked
