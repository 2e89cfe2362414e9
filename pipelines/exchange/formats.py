"""Lists and examples as lines and rows of other tools' formats.

TREC separates columns by white space, and BEIR's judgements by tabs, without a way to quote an id that holds some: such
an id is refused, since every tool would read another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipelines.exchange.rows import Example, RankedList, Row, Side, ordered
from rerank_core.querylog.privacy import shown
from schemas.errors import ManifestError

TAG = "nightrank"
"""The run's name in the last column of a TREC run."""

TRIPLET = pa.schema([("anchor", pa.string()), ("positive", pa.string()), ("negative", pa.string())])
LABELED_PAIR = pa.schema([("anchor", pa.string()), ("document", pa.string()), ("label", pa.float32())])
LABELED_LIST = pa.schema(
    [("anchor", pa.string()), ("documents", pa.list_(pa.string())), ("labels", pa.list_(pa.float32()))]
)
"""Columns as sentence-transformers' `mine_hard_negatives` orders them: its losses go by the order, not by the names."""


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as a line of JSON."""
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def trec_run(found: RankedList, side: Side) -> Iterator[bytes]:
    """The lines "qid Q0 docid rank score tag" of a query's documents.

    Raises:
        ManifestError: an id that TREC's format cannot hold.
    """
    for rank, (row, score) in enumerate(ordered(found, side, by="doc_id"), start=1):
        item = trec_id(row["doc_id"])
        yield f"{found.query_id} Q0 {item} {rank} {score:.9g} {TAG}\n".encode()


def trec_id(name: str) -> str:
    """An id of one column between white space.

    Raises:
        ManifestError: it is empty, or holds white space.
    """
    if name.split() != [name]:
        raise ManifestError(
            f"document {shown(name)}: TREC's format has no place for an id that is empty or holds white space; choose "
            "another format, or give the document another id in the index"
        )
    return name


def tsv_id(name: str) -> str:
    """An id of one column between tabs.

    Raises:
        ManifestError: it is empty, begins with a quotation mark, or holds a tab, a line end or white space around it.
    """
    if not name or name != name.strip() or name[0] == '"' or any(character in name for character in "\t\r\n"):
        raise ManifestError(
            f"document {shown(name)}: BEIR's judgements have no place for an id that is empty, begins with a quotation "
            "mark, or holds a tab, a line end or white space around it; choose another format, or give the document "
            "another id in the index"
        )
    return name


def document(row: Row, *, run_id: str) -> dict[str, str]:
    """Title and text of a unit.

    Raises:
        ManifestError: the run has none.
    """
    if row["text"] is None:
        raise ManifestError(f"run {run_id} has no texts; publish one with output.store_text = true")
    return {"title": row["title"] or "", "text": row["text"]}


def rankllm(found: RankedList, side: Side, *, run_id: str) -> dict[str, Any]:
    """A query and its units as a request of RankLLM, best first."""
    candidates = [
        {"docid": row["passage_id"], "score": score, "doc": document(row, run_id=run_id)}
        for row, score in ordered(found, side, by="passage_id")
    ]
    return {"query": {"text": found.query, "qid": found.query_id}, "candidates": candidates}


def flagembedding(one: Example) -> dict[str, Any]:
    """An example as a line of FlagEmbedding's training data; it ignores the ids, which importing reads."""
    return {
        "query": one.query,
        "pos": [one.positive],
        "neg": list(one.negatives),
        "pos_scores": [one.logits[0]],
        "neg_scores": list(one.logits[1:]),
        "pos_id": [one.ids[0]],
        "neg_id": list(one.ids[1:]),
    }


def triplets(one: Example) -> Iterator[Row]:
    """A row a negative."""
    for negative in one.negatives:
        yield {"anchor": one.query, "positive": one.positive, "negative": negative}


def labeled_pairs(one: Example) -> Iterator[Row]:
    """A row a passage, the positive first."""
    for number, passage in enumerate((one.positive, *one.negatives)):
        yield {"anchor": one.query, "document": passage, "label": float(number == 0)}


def labeled_lists(one: Example) -> Iterator[Row]:
    """One row, the positive first."""
    labels = [1.0, *(0.0 for _ in one.negatives)]
    yield {"anchor": one.query, "documents": [one.positive, *one.negatives], "labels": labels}


def document_id(passage_id: str, *, whole: bool) -> str:
    """The document of a unit; `whole`: the run's units are whole passages."""
    return passage_id if whole else passage_id.rpartition("#")[0]


def tables(rows: Iterable[Row], schema: pa.Schema, *, size: int) -> Iterator[pa.Table]:
    """Rows as tables of about that many."""
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield pa.Table.from_pylist(chunk, schema=schema)
            chunk = []
    if chunk:
        yield pa.Table.from_pylist(chunk, schema=schema)
