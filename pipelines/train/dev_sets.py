"""The judged sets that a training is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.evaluate.judged_sets import Selection, read_sets
from pipelines.evaluate.published import read_judgements
from pipelines.evaluate.scores import candidate_groups
from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from rerank_core.config.night import Evaluation
from rerank_core.config.training import split_run
from rerank_core.errors import ConfigError, JudgementError
from rerank_core.evaluation.qrels import Qrels
from rerank_core.features.render import passage_text, render_tags
from rerank_core.features.tags import input_tags
from rerank_core.files import is_address, not_here
from rerank_core.text import fingerprint, query_id
from rerank_core.training.dev_set import DevQuery, DevSet
from schemas.errors import ManifestError
from schemas.records import QueryGroup
from schemas.tags import Tags

SPLITS = ("dev", "validation", "test")
"""Splits of a BEIR folder that may be measured on; the first with judgements is."""


def read_dev(path: str, *, queries: int, top_k: int, tagged: bool) -> tuple[DevSet, str]:
    """A judged set, and a description of it for the model card.

    Args:
        path: a BEIR folder, or the output folder (or folder@run_id) of a night with judgements.
        queries: judged queries to measure on, drawn by hash if there are more.
        top_k: candidates of each, BM25's best.
        tagged: whether tags are needed; the passages of a BEIR folder are tagged now.

    Raises:
        ManifestError, JudgementError, SourceError: it cannot be used.
        ConfigError: a BEIR folder in an object store.
    """
    if (Path(path) / "corpus.jsonl").is_file():
        return _beir(Path(path), queries=queries, top_k=top_k, tagged=tagged)
    if is_address(path) and filesystem.exists(f"{path}/corpus.jsonl"):
        raise ConfigError(f"dev: {not_here(path)}")
    return _night(path, queries=queries, top_k=top_k, tagged=tagged)


def query_ids(dev: DevSet) -> frozenset[str]:
    """Nightrank's ids of a set's queries, whatever ids the set gives them."""
    return frozenset(query_id(query.query) for query in dev.queries)


def _night(path: str, *, queries: int, top_k: int, tagged: bool) -> tuple[DevSet, str]:
    output, run_id = split_run(path)
    manifest = stored_runs.open_run(output, run_id)
    judged = read_judgements(stored_runs.section(manifest, Evaluation, "evaluation")).get("document")
    if not judged:
        raise JudgementError(
            f"run {manifest.run_id} in {output} has no judgements of documents; set evaluation.queries and "
            "evaluation.qrels in the night's configuration, or name a BEIR folder as dev"
        )
    columns = [
        "query_id",
        "query",
        "doc_id",
        "title",
        "text",
        "doc_rank_before",
        "rank_before",
        *input_tags(),
    ]
    by_query: dict[str, list[dict[str, Any]]] = {}
    for file in stored_runs.table_files(output, manifest, "reranked"):
        for row in filesystem.read_table(file, columns).to_pylist():
            if row["query_id"] in judged and row["doc_rank_before"] <= top_k:
                by_query.setdefault(row["query_id"], []).append(row)
    if any(row["text"] is None for rows in by_query.values() for row in rows):
        raise ManifestError(
            f"run {manifest.run_id} in {output} has no texts; publish one with output.store_text = true"
        )
    published = [_published(rows) for rows in by_query.values()]
    if tagged and not all(all(query.tags) for query in published):
        raise ManifestError(
            f"run {manifest.run_id} in {output} was published without tags, so a model that reads tags cannot be "
            "measured on it; name another dev set"
        )
    drawn = sorted(published, key=lambda query: fingerprint("dev", query.query_id))[:queries]
    return _dev_set(f"night {manifest.run_id}", drawn, judged, judged=len(published))


def _published(rows: list[dict[str, Any]]) -> DevQuery:
    rows.sort(key=lambda row: row["rank_before"])
    tags = [render_tags(Tags.from_row(row)) for row in rows]
    return DevQuery(
        rows[0]["query_id"],
        rows[0]["query"],
        tuple(row["doc_id"] for row in rows),
        tuple(passage_text(row["title"], row["text"]) for row in rows),
        tuple(tags),
    )


def _beir(folder: Path, *, queries: int, top_k: int, tagged: bool) -> tuple[DevSet, str]:
    split = next((name for name in SPLITS if (folder / "qrels" / f"{name}.tsv").is_file()), None)
    if split is None:
        raise JudgementError(
            f"no judgements in {folder / 'qrels'}; add one of {', '.join(f'{s}.tsv' for s in SPLITS)}"
        )
    selection = Selection(split, top_k=top_k, max_queries=queries)
    with read_sets([folder], selection=selection) as (judged,):
        groups = [group for chunk, _ in candidate_groups(judged, tagged=tagged) for group in chunk]
    by_id = {group.query.query_id: _searched(group, tagged=tagged) for group in groups}
    asked = [by_id.get(q.query_id) or DevQuery(q.query_id, q.text, (), (), ()) for q in judged.queries]
    name = f"{judged.name} ({split})"
    return _dev_set(name, asked, judged.qrels, judged=len(asked) + judged.counts["not_asked"])


def _searched(group: QueryGroup, *, tagged: bool) -> DevQuery:
    return DevQuery(
        group.query.query_id,
        group.query.text,
        tuple(c.candidate.doc_id for c in group.candidates),
        tuple(passage_text(c.candidate.title, c.candidate.text) for c in group.candidates),
        tuple(render_tags(c.tags if tagged else None) for c in group.candidates),
    )


def _dev_set(name: str, asked: list[DevQuery], qrels: Qrels, *, judged: int) -> tuple[DevSet, str]:
    candidates = sum(len(query.passages) for query in asked)
    if not candidates:
        raise JudgementError(f"{name}: none of its judged queries has a candidate")
    said = f"{name}, {judged:,} judged queries, {len(asked):,} measured on {candidates:,} candidates"
    return DevSet(name, tuple(asked), {query.query_id: qrels[query.query_id] for query in asked}), said
