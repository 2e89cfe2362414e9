"""The judged sets that a training is measured on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pipelines.evaluate.published import read_judgements
from pipelines.sources.local.bm25_index import LocalIndex, build_index
from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from rerank_core.config.night import Evaluation, Tagging
from rerank_core.config.training import split_run
from rerank_core.errors import JudgementError
from rerank_core.evaluation.qrels import Qrels, read_qrels, read_queries
from rerank_core.features.render import passage_text, render_tags
from rerank_core.features.tagger import tag
from rerank_core.features.tags import input_tags
from rerank_core.text import fingerprint, query_id
from rerank_core.training.dev_set import DevQuery, DevSet
from schemas.errors import ManifestError
from schemas.records import Document
from schemas.tags import Tags

SPLITS = ("dev", "validation", "test")
"""Judgements of a BEIR folder that a model is measured on, the first that is there."""


def read_dev(named: str, *, queries: int, top_k: int, tagged: bool) -> tuple[DevSet, str]:
    """A judged set, and a sentence that says what it is.

    Args:
        named: a BEIR folder, or the output folder (or folder@run_id) of a night with judgements.
        queries: judged queries that are measured, drawn by hash where there are more.
        top_k: candidates of each, the first by BM25.
        tagged: tags are needed; those of a BEIR folder are found now.

    Raises:
        ManifestError, JudgementError, SourceError: it cannot be used.
    """
    if (Path(named) / "corpus.jsonl").is_file():
        return _beir(Path(named), queries=queries, top_k=top_k, tagged=tagged)
    return _night(named, queries=queries, top_k=top_k, tagged=tagged)


def query_ids(dev: DevSet) -> frozenset[str]:
    """Nightrank's ids of a set's queries, whatever the set calls them."""
    return frozenset(query_id(one.query) for one in dev.queries)


def _night(named: str, *, queries: int, top_k: int, tagged: bool) -> tuple[DevSet, str]:
    output, run_id = split_run(named)
    manifest = stored_runs.open_run(output, run_id)
    judged = read_judgements(Evaluation(**manifest.config["evaluation"])).get("document")
    if not judged:
        raise JudgementError(
            f"run {manifest.run_id} in {output} has no judgements of documents; set evaluation.queries and "
            "evaluation.qrels in the night's configuration, or name a BEIR folder as dev"
        )
    found: dict[str, list[dict[str, Any]]] = {}
    columns = ["query_id", "query", "doc_id", "title", "text", "doc_rank_before", "rank_before",
               *input_tags()]  # fmt: skip
    for path in stored_runs.table_files(output, manifest, "reranked"):
        for row in filesystem.read_table(path, columns).to_pylist():
            if row["query_id"] in judged and row["doc_rank_before"] <= top_k:
                found.setdefault(row["query_id"], []).append(row)
    if any(row["text"] is None for rows in found.values() for row in rows):
        raise ManifestError(
            f"run {manifest.run_id} in {output} has no texts; publish one with output.store_text = true"
        )
    asked = [_published(rows) for _, rows in sorted(found.items())]
    if tagged and not all(head for one in asked for head in one.tags):
        raise ManifestError(
            f"run {manifest.run_id} in {output} was published without tags, and cannot measure a model that reads "
            "them; name another dev set"
        )
    name = f"night {manifest.run_id}"
    return _dev_set(name, asked, judged, queries=queries, whole=f"{name}, {len(asked):,} judged queries")


def _published(rows: list[dict[str, Any]]) -> DevQuery:
    rows.sort(key=lambda row: row["rank_before"])
    heads = [render_tags(Tags.from_row(row)) for row in rows]
    return DevQuery(
        rows[0]["query_id"],
        rows[0]["query"],
        tuple(row["doc_id"] for row in rows),
        tuple(passage_text(row["title"], row["text"]) for row in rows),
        tuple(heads),
    )


def _beir(folder: Path, *, queries: int, top_k: int, tagged: bool) -> tuple[DevSet, str]:
    split = next((name for name in SPLITS if (folder / "qrels" / f"{name}.tsv").is_file()), None)
    if split is None:
        raise JudgementError(
            f"no judgements in {folder / 'qrels'}; add one of {', '.join(f'{s}.tsv' for s in SPLITS)}"
        )
    qrels = read_qrels(folder / "qrels" / f"{split}.tsv")
    texts = {
        name: query.text for name, query in read_queries(folder / "queries.jsonl").items() if name in qrels
    }
    if not texts:
        raise JudgementError(
            f"{folder / 'qrels' / f'{split}.tsv'} judges no query of {folder / 'queries.jsonl'}"
        )
    whole = f"{folder.name} ({split}), {len(texts):,} judged queries"
    drawn = sorted(texts, key=lambda name: fingerprint("dev", name))[:queries]
    with tempfile.TemporaryDirectory() as work:
        build_index(folder, Path(work) / "index")
        results = LocalIndex(Path(work) / "index").search([texts[name] for name in drawn], top_k=top_k)
    asked = [
        _searched(name, texts[name], documents, tagged=tagged)
        for name, documents in zip(drawn, results, strict=True)
    ]
    return _dev_set(f"{folder.name} ({split})", asked, qrels, queries=queries, whole=whole)


def _searched(name: str, query: str, documents: list[Document], *, tagged: bool) -> DevQuery:
    pairs = [(one.title, one.text) for one in documents]
    tags = (
        [render_tags(found) for found in tag(query, pairs, config=Tagging())]
        if tagged and pairs
        else [""] * len(pairs)
    )
    return DevQuery(
        name,
        query,
        tuple(one.doc_id for one in documents),
        tuple(passage_text(*pair) for pair in pairs),
        tuple(tags),
    )


def _dev_set(
    name: str, asked: list[DevQuery], qrels: Qrels, *, queries: int, whole: str
) -> tuple[DevSet, str]:
    drawn = sorted(asked, key=lambda one: fingerprint("dev", one.query_id))[:queries]
    if not any(one.passages for one in drawn):
        raise JudgementError(f"{name}: none of its judged queries has a candidate")
    held = {one.query_id: qrels[one.query_id] for one in drawn}
    said = f"{whole}, {len(drawn):,} measured on {sum(len(one.passages) for one in drawn):,} candidates"
    return DevSet(name, tuple(drawn), held), said
