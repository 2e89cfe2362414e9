"""A published night as a judged set: BM25's order and the reranked one, as two systems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pipelines.evaluate.published import COLUMNS, read_judgements, read_rows
from pipelines.evaluate.systems import Opened
from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from rerank_core.config.backends import gives_cosines
from rerank_core.config.night import Evaluation
from rerank_core.errors import JudgementError
from rerank_core.evaluation.comparison import Order, SetResult, measured, run_orders
from rerank_core.evaluation.measures import Level
from rerank_core.evaluation.qrels import Qrels, read_queries
from rerank_core.text import query_id
from schemas.manifest import Manifest

Rows = Sequence[dict[str, Any]]

NIGHTS_SYSTEMS = ("bm25", "reranked")
"""What a night's two orders are called."""


class Night(NamedTuple):
    """A published run and what it is judged by."""

    output: str
    queries: str  # BEIR's queries.jsonl
    qrels: str  # of documents, or at level "unit" of sentences
    run_id: str = ""  # "" is the newest
    level: Level = "document"
    min_relevance: int = 1


def evaluate_night(night: Night, runs: Sequence[Opened] = ()) -> SetResult:
    """Measure a published run, over the judged queries that it was asked.

    Args:
        night: the run.
        runs: run files to measure beside it; their query ids are the judgements' own, or Nightrank's.

    Raises:
        ManifestError: no such run, or a damaged one.
        JudgementError: judgements that cannot be used, or that judge nothing of the run.
    """
    manifest = stored_runs.open_run(night.output, night.run_id)
    rows, qrels, failed = _read(night, manifest)
    bm25, reranked = _orders(rows, night.level)
    relevant = {
        (query, item)
        for query, g in qrels.items()
        for item, grade in g.items()
        if grade >= night.min_relevance
    }
    cut = manifest.balance.pairs.get("below_top_n", 0)
    own_names = _own_names(night) if runs else {}
    lists = dict(zip(NIGHTS_SYSTEMS, (bm25, reranked), strict=True))
    if cut:
        del lists["bm25"]
    for one in runs:
        orders = {own_names.get(query, query): order for query, order in (one.orders or {}).items()}
        lists[one.system.name] = run_orders(
            orders, qrels, told=f"{one.system.path} and run {manifest.run_id}"
        )
    logits = not gives_cosines(manifest.config["scoring"]["backend"])
    systems = {
        name: measured(
            order, qrels=qrels, min_relevance=night.min_relevance, logits=logits and name == "reranked"
        )
        for name, order in lists.items()
    }
    truncated = sum(row["overflow_tokens"] > 0 for row in rows)
    systems["reranked"] = systems["reranked"]._replace(failed=failed, truncated=truncated)
    found = sum((query, item) in relevant for query, order in reranked.items() for item, _ in order)
    note = (
        f"BM25's order is left out: the run published only the best documents of each query, {cut:,} pairs fewer than "
        "it ranked"
    )
    return SetResult(
        name=f"night {manifest.run_date}",
        level=night.level,
        told="what the run published",
        fingerprint=manifest.run_id,
        queries=len(qrels),
        types={},
        reach=found / len(relevant),
        counts={},
        systems=systems,
        notes=(note,) if cut else (),
    )


def _read(night: Night, manifest: Manifest) -> tuple[Rows, Qrels, int]:
    """The rows of judged queries, their judgements, and how many of their pairs could not be scored."""
    judgements = (
        Evaluation(queries=night.queries, sentence_qrels=night.qrels)
        if night.level == "unit"
        else Evaluation(queries=night.queries, qrels=night.qrels)
    )
    judged = read_judgements(judgements)[night.level]
    reranked = stored_runs.table_files(night.output, manifest, "reranked")
    dead = stored_runs.table_files(night.output, manifest, "dead_letters")
    columns = (*COLUMNS, "bm25_score", "logit", "overflow_tokens")
    rows, asked = read_rows(reranked, dead, set(judged), columns=columns)
    if night.level == "unit" and all(row["doc_id"] == row["passage_id"] for row in rows):
        raise JudgementError(
            f"run {manifest.run_id} ranked whole passages, of which judged sentences say nothing; use --level document"
        )
    qrels = {
        query: {item: max(0, grade) for item, grade in judged[query].items()}
        for query in sorted(asked)
        if max(judged[query].values()) >= night.min_relevance
    }
    if not qrels:
        raise JudgementError(
            f"{night.qrels} has nothing relevant for any query of run {manifest.run_id}; are they of one log?"
        )
    letters = (
        row
        for path in dead
        for row in filesystem.read_table(path, ["unit", "stage", "record"]).to_pylist()
        if (row["unit"], row["stage"]) == ("pair", "ScoreCandidates")
    )
    failed = sum(letter["record"].partition("/")[0] in qrels for letter in letters)
    return [row for row in rows if row["query_id"] in qrels], qrels, failed


def _orders(rows: Rows, level: Level) -> tuple[dict[str, Order], dict[str, Order]]:
    """BM25's lists and the reranked ones; a document stands where its best unit does."""
    item = "passage_id" if level == "unit" else "doc_id"
    return (
        _first_of_each(
            (row["query_id"], row[item], row["bm25_score"]) for row in _sorted(rows, "rank_before")
        ),
        _first_of_each((row["query_id"], row[item], row["logit"]) for row in _sorted(rows, "rank")),
    )


def _sorted(rows: Rows, place: str) -> Rows:
    return sorted(rows, key=lambda row: (row["query_id"], row[place]))


def _first_of_each(places: Iterable[tuple[str, str, float | None]]) -> dict[str, Order]:
    lists: dict[str, dict[str, float | None]] = {}
    for query, item, score in places:
        lists.setdefault(query, {}).setdefault(item, score)
    return {query: list(found.items()) for query, found in lists.items()}


def _own_names(night: Night) -> dict[str, str]:
    """Nightrank's query ids by the judgements' own."""
    return {
        name: query_id(query.text)
        for name, query in read_queries(night.queries, opener=filesystem.open_text).items()
    }
