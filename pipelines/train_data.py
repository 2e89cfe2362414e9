"""What a training reads: published runs as files of groups, and judged sets to measure on."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines import store
from pipelines.metrics import read_judgements
from pipelines.sources.bm25_index import LocalIndex, build_index
from rerank_core.config import Evaluation, Tagging
from rerank_core.features import tag
from rerank_core.features.render import passage_text, render_tags
from rerank_core.judgements import JudgementError, Qrels, read_qrels, read_queries
from rerank_core.text import fingerprint, query_id
from rerank_core.training.curriculum import Stage, split_run
from rerank_core.training.dev_set import DevQuery, DevSet
from rerank_core.training.parquet import (
    COLUMNS,
    Group,
    check_version,
    hard_negative_groups,
    training_pair_groups,
    without_duplicates,
    write_groups,
)
from schemas.manifest import Manifest, ManifestError
from schemas.records import Document, Tags

SPLITS = ("dev", "validation", "test")
"""Judgements of a BEIR folder that a model is measured on, the first that is there."""

_BATCH_ROWS = 1024
Run = tuple[str, Manifest]


def find_runs(stage: Stage) -> list[Run]:
    """(output folder, manifest) of each of a stage's runs, the newest first, each once.

    Raises:
        ManifestError: no such run, nothing published, or another version of the table.
    """
    found: dict[tuple[str, str], Run] = {}
    for named in stage.runs:
        output, run_id = split_run(named)
        manifest = _find(output, run_id)
        if stage.source not in manifest.tables:
            raise ManifestError(f"the manifest of run {manifest.run_id} in {output} names no {stage.source}")
        found[output, manifest.run_id] = (output, manifest)
    return sorted(
        found.values(), key=lambda run: (run[1].run_date, run[1].created_at, run[1].run_id), reverse=True
    )


def prepare(
    stage: Stage,
    path: Path,
    *,
    held_out: frozenset[str] = frozenset(),
    on_progress: Callable[[int], None] = lambda more: None,
) -> dict[str, Any]:
    """Write a stage's groups to `path`, and give what the model card says of them; a prepared stage is only read.

    Args:
        stage: what to read.
        path: file of the groups.
        held_out: query_ids of the dev sets, which are not trained on.
        on_progress: told how many more groups there are.

    Raises:
        ManifestError: a run cannot be used, holds no group, or no tags although the stage keeps them.
    """
    record = path.with_suffix(
        ".json"
    )  # written last: a training that is resumed learns from the very same groups
    if record.exists():
        held: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return held
    counts: Counter[str] = Counter()
    runs = find_runs(stage)
    write_groups(_counted(_all_groups(stage, runs, held_out, counts), on_progress), path)
    if not counts["groups"]:
        places = ", ".join(f"{manifest.run_id} in {output}" for output, manifest in runs)
        raise ManifestError(
            f"stage {stage.name!r}: no positive with a negative in {places} (left out as queries of a dev set: "
            f"{counts['groups_held_out']}); see labels and mining of the night, or lower dev_queries"
        )
    told: dict[str, Any] = {"name": stage.name, "source": stage.source, "counts": dict(counts)}
    told["runs"] = [_told(output, manifest, stage.source) for output, manifest in runs]
    store.write_bytes(str(record), json.dumps(told).encode())
    return told


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


def _find(output: str, run_id: str) -> Manifest:
    manifest = store.find_run(output, run_id) if run_id else store.latest(output)
    if manifest is None:
        raise ManifestError(
            f"no published run in {output}: {store.join(output, 'latest.json')} is not there; name the output folder "
            "of a nightly job"
        )
    return manifest


def _told(output: str, manifest: Manifest, table: str) -> dict[str, Any]:
    """What the model card says of a run, and where a later round finds it."""
    return {
        "output": output,
        "run_id": manifest.run_id,
        "run_date": manifest.run_date,
        "created_at": manifest.created_at,
        "rows": manifest.tables[table].rows,
        "model_fingerprint": manifest.model_fingerprint,
        "labels": manifest.config.get("labels", {}).get("source", "unknown"),
    }


def _all_groups(
    stage: Stage, runs: list[Run], held_out: frozenset[str], counts: Counter[str]
) -> Iterator[Group]:
    seen: set[bytes] = set()

    def learnt(groups: Iterator[Group]) -> Iterator[Group]:
        for group in groups:
            if query_id(group.query) in held_out:
                counts["groups_held_out"] += 1
            else:
                yield group

    for output, manifest in runs:
        for group in without_duplicates(learnt(_groups(stage, output, manifest, counts)), seen, counts):
            if stage.tags.policy == "keep" and not all(group.tags):
                raise ManifestError(_untagged(stage, output, manifest))
            yield group


def _groups(stage: Stage, output: str, manifest: Manifest, counts: Counter[str]) -> Iterator[Group]:
    for path in store.table_files(output, manifest, stage.source):
        file = store.open_parquet(path)
        check_version(file.schema_arrow, stage.source, name=path)
        batches: Iterator[pa.RecordBatch] = file.iter_batches(
            batch_size=_BATCH_ROWS, columns=list(COLUMNS[stage.source]), use_threads=False
        )
        if stage.source == "hard_negatives":
            yield from hard_negative_groups(batches, negatives=stage.negatives, counts=counts)
        else:
            yield from training_pair_groups(batches, negatives=stage.negatives, counts=counts, name=path)


def _counted(groups: Iterator[Group], on_progress: Callable[[int], None]) -> Iterator[Group]:
    for group in groups:
        on_progress(1)
        yield group


def _untagged(stage: Stage, output: str, manifest: Manifest) -> str:
    told = f"stage {stage.name!r} keeps tags, but run {manifest.run_id} in {output} "
    if stage.source == "training_pairs":
        return told + "has training_pairs of a model that reads none; set source = 'hard_negatives'"
    return told + "was published without; turn tags.enabled on for a night, or set tags.policy = 'drop'"


def _night(named: str, *, queries: int, top_k: int, tagged: bool) -> tuple[DevSet, str]:
    output, run_id = split_run(named)
    manifest = _find(output, run_id)
    judged = read_judgements(Evaluation(**manifest.config["evaluation"])).get("document")
    if not judged:
        raise JudgementError(
            f"run {manifest.run_id} in {output} has no judgements of documents; set evaluation.queries and "
            "evaluation.qrels in the night's configuration, or name a BEIR folder as dev"
        )
    found: dict[str, list[dict[str, Any]]] = {}
    columns = ["query_id", "query", "doc_id", "title", "text", "doc_rank_before", "rank_before",
               "hop", "role", "entities", "causal", "reasoning"]  # fmt: skip
    for path in store.table_files(output, manifest, "reranked"):
        for row in store.read_table(path, columns).to_pylist():
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
    heads = [
        ""
        if row["hop"] is None
        else render_tags(
            Tags(row["hop"], row["role"], tuple(row["entities"]), row["causal"], row["reasoning"])
        )
        for row in rows
    ]
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
