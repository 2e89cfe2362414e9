"""A published run in the format of another tool. In memory are one shard, and the ids of what was written once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.exchange import formats
from pipelines.exchange.rows import Example, Row, Side, examples, lists
from pipelines.exchange.targets import Open, writing
from pipelines.storage import runs as stored_runs
from rerank_core.config.source import Candidates
from rerank_core.errors import ConfigError
from schemas.manifest import Manifest

_ROWS = 10_000


class Job(NamedTuple):
    """A run and what is wanted of it."""

    output: str
    manifest: Manifest
    side: Side = "reranked"
    split: str = "dev"
    to: str = ""


class Exported(NamedTuple):
    """What was written."""

    path: str
    format: str
    run_id: str
    counts: dict[str, int]  # queries, documents, judgements, rows ...
    notes: tuple[str, ...]  # what was left out, a sentence each


def export(
    output: str, *, format: str, to: str, run_id: str = "", side: Side = "reranked", split: str = "dev"
) -> Exported:
    """Write a published run to a file or folder, whole or not at all.

    Args:
        output: output folder of the nightly job.
        format: one of FORMATS.
        to: a file, or for "trec" and "beir" a folder; also of an object store.
        run_id: a published run; "" is the newest.
        side: the order of RankLLM's candidates.
        split: name of BEIR's split.

    Raises:
        ConfigError: an unknown format, a file whose name ends otherwise, an order that the run does not have.
        OutputError: there is something at `to`.
        ManifestError: the run cannot be used, lacks the table or texts, or has an id that the format cannot hold.
    """
    if format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}; choose one of {', '.join(FORMATS)}")
    writer, suffixes = FORMATS[format]
    if suffixes and not to.endswith(suffixes):
        raise ConfigError(f"{to}: a file of format {format} must end in {' or '.join(suffixes)}; rename it")
    manifest = stored_runs.open_run(output, run_id)
    counts: Counter[str] = Counter()
    notes: list[str] = []
    with writing(to) as create:
        writer(Job(output, manifest, side, split, to), create, counts, notes)
    return Exported(to, format, manifest.run_id, dict(counts), tuple(notes))


_Writer = Callable[[Job, Open, Counter[str], list[str]], None]


def _trec(job: Job, create: Open, counts: Counter[str], notes: list[str]) -> None:
    queries, reranked = create("queries.tsv"), create("reranked.run")
    bm25 = None if (note := _cut(job)) else create("bm25.run")
    notes += [note] if note else []
    for found in lists(job.output, job.manifest):
        counts["queries"] += 1
        queries.write(f"{found.query_id}\t{' '.join(found.query.split())}\n".encode())
        counts["documents"] += _write(reranked, formats.trec_run(found, "reranked"))
        if bm25:
            _write(bm25, formats.trec_run(found, "bm25"))
    qrels = (
        f"{query_id} 0 {formats.trec_id(doc_id)} 1\n".encode() for query_id, doc_id in _positives(job, notes)
    )
    counts["judgements"] += _write(create("qrels.txt"), qrels)


def _beir(job: Job, create: Open, counts: Counter[str], notes: list[str]) -> None:
    corpus, queries = create("corpus.jsonl"), create("queries.jsonl")
    seen: set[str] = set()
    for found in lists(job.output, job.manifest):
        counts["queries"] += 1
        ranked = sorted(found.rows, key=lambda row: row["rank_before"])
        for row in ranked:
            if row["passage_id"] not in seen:
                seen.add(row["passage_id"])
                text = formats.document(row, run_id=job.manifest.run_id)
                corpus.write(formats.json_line({"_id": row["passage_id"], **text}))
        query = {"_id": found.query_id, "text": found.query}
        queries.write(formats.json_line({**query, "candidates": [row["passage_id"] for row in ranked]}))
    counts["documents"] = len(seen)
    qrels = create(f"qrels/{job.split}.tsv")
    qrels.write(b"query-id\tcorpus-id\tscore\n")
    missing = 0
    for query_id, item in _positives(job, notes, documents=False):
        counts["judgements"] += 1
        missing += item not in seen
        qrels.write(f"{query_id}\t{formats.tsv_id(item)}\t1\n".encode())
    if missing:
        notes.append(
            f"{missing:,} judged documents are not in the corpus: the run published others of their queries"
        )


def _rankllm(job: Job, create: Open, counts: Counter[str], notes: list[str]) -> None:
    if job.side == "bm25" and (note := _cut(job)):
        raise ConfigError(f"{note}; choose the order reranked")
    file = create("")
    for found in lists(job.output, job.manifest):
        request = formats.rankllm(found, job.side, run_id=job.manifest.run_id)
        counts.update(queries=1, documents=len(request["candidates"]))
        file.write(formats.json_line(request))


def _flagembedding(job: Job, create: Open, counts: Counter[str], notes: list[str]) -> None:
    found = examples(job.output, job.manifest)
    counts["examples"] += _write(create(""), (formats.json_line(formats.flagembedding(one)) for one in found))


def _sentence_transformers(convert: Callable[[Example], Iterator[Row]], schema: pa.Schema) -> _Writer:
    def write(job: Job, create: Open, counts: Counter[str], notes: list[str]) -> None:
        rows = (row for one in examples(job.output, job.manifest) for row in convert(one))
        file = create("")
        if job.to.endswith(".jsonl"):
            counts["rows"] += _write(file, map(formats.json_line, rows))
            return
        with pq.ParquetWriter(file, schema, compression="zstd") as parquet:
            for table in formats.tables(rows, schema, size=_ROWS):
                counts["rows"] += table.num_rows
                parquet.write_table(table)

    return write


_JSONL, _TABLE = (".jsonl",), (".jsonl", ".parquet")
FORMATS: dict[str, tuple[_Writer, tuple[str, ...]]] = {
    "trec": (_trec, ()),
    "beir": (_beir, ()),
    "rankllm": (_rankllm, _JSONL),
    "flagembedding": (_flagembedding, _JSONL),
    "st-triplet": (_sentence_transformers(formats.triplets, formats.TRIPLET), _TABLE),
    "st-labeled-pair": (_sentence_transformers(formats.labeled_pairs, formats.LABELED_PAIR), _TABLE),
    "st-labeled-list": (_sentence_transformers(formats.labeled_lists, formats.LABELED_LIST), _TABLE),
}
"""How each format is written, and how its file's name must end; a format without endings is a folder."""


def _positives(job: Job, notes: list[str], *, documents: bool = True) -> Iterator[tuple[str, str]]:
    """(query_id, doc_id or passage_id) of every positive that was mined for, each once."""
    if "hard_negatives" not in job.manifest.tables:
        notes.append("there are no judgements: the run has no hard_negatives (mining.enabled = false)")
        return
    whole = stored_runs.section(job.manifest, Candidates, "candidates").unit == "passage"
    before: tuple[str, set[str]] = ("", set())  # a query's examples are adjacent
    for one in examples(job.output, job.manifest):
        item = formats.document_id(one.ids[0], whole=whole) if documents else one.ids[0]
        if one.query_id != before[0]:
            before = (one.query_id, set())
        if item not in before[1]:
            before[1].add(item)
            yield one.query_id, item


def _cut(job: Job) -> str:
    """Why the run does not have BM25's order; "" if it has."""
    cut = job.manifest.balance.pairs.get("below_top_n", 0)
    said = "BM25's order is left out: the run published only the best documents of each query"
    return f"{said}, {cut:,} pairs fewer than it ranked" if cut else ""


def _write(file: BinaryIO, lines: Iterator[bytes]) -> int:
    """Write lines, and count them."""
    count = 0
    for line in lines:
        file.write(line)
        count += 1
    return count
