"""One pyarrow schema per published table, each with a version, and a doc for every column.

A change that a reader could notice raises the table's version and gets a line in CHANGELOG.md. The files in
tests/golden show what is published.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from schemas.tags import FIELDS

STR, F32, I32, BOOL = pa.string(), pa.float32(), pa.int32(), pa.bool_()
STRINGS, INTS = pa.list_(pa.field("element", STR)), pa.list_(pa.field("element", I32))
Column = tuple[str, pa.DataType, bool, str]  # name, type, whether it may be null, doc
_TAG_TYPES: dict[Any, pa.DataType] = {int: I32, str: STR, bool: BOOL, tuple[str, ...]: STRINGS}


def _tag_columns() -> list[Column]:
    """A column for each field of `Tags`; fields of one file side by side."""
    columns: dict[str, list[Column]] = {}
    for name, (kind, field) in FIELDS.items():
        column = (name, _TAG_TYPES[kind], True, f"{field.doc}; null without tags.")
        columns.setdefault(field.tag.partition(".")[0], []).append(column)
    return [column for beside in columns.values() for column in beside]


def _table(name: str, version: int, columns: list[Column]) -> pa.Schema:
    fields = [pa.field(n, t, nullable=null, metadata={"doc": doc}) for n, t, null, doc in columns]
    return pa.schema(fields, metadata={"table": name, "schema_version": str(version)})


MENTION = pa.struct(
    [
        pa.field("text", STR, nullable=False),
        pa.field("label", STR, nullable=False),
        pa.field("start", I32, nullable=False),
        pa.field("end", I32, nullable=False),
    ]
)

RERANKED = _table(
    "reranked",
    6,
    [
        ("query_id", STR, False, "Id of the normalised query: 16 hex digits of its SHA-256."),
        ("query", STR, False, "The normalised query text."),
        ("doc_id", STR, False, "Id of the document in the source index."),
        ("passage_id", STR, False, "Id of the scored unit: doc_id, or doc_id#n for its n-th unit from 0."),
        ("title", STR, True, "Title of the document; null where output.store_text is false."),
        ("text", STR, True, "Text of the unit; null where output.store_text is false: join on passage_id."),
        ("rank", I32, False, "Rank of the unit after reranking, from 1."),
        ("rank_before", I32, False, "Rank of the unit in BM25's order, from 1."),
        ("doc_rank", I32, False, "Rank of the document after reranking, by its best unit (MaxP), from 1."),
        ("doc_rank_before", I32, False, "Rank of the document in BM25's order, from 1."),
        ("bm25_score", F32, False, "BM25 score of the document, as the index gave it."),
        (
            "logit",
            F32,
            True,
            "The cross-encoder's raw output; compare logits only under one model; null if pruned.",
        ),
        (
            "fused_logit",
            F32,
            True,
            "The logit made by the manifest's fusion weights, by which rows are ranked; null without fusion.",
        ),
        (
            "score",
            F32,
            True,
            "Sigmoid of the fused logit, or else the logit's calibrated one, 0 to 1; null if pruned.",
        ),
        (
            "cheap_score",
            F32,
            True,
            "Score of the first-stage model: the cascade's, or fusion's bi-encoder; null without, or if failed.",
        ),
        *_tag_columns(),
        (
            "evidence",
            STR,
            True,
            "Best sentence, or fewest that keep evidence.keep_share; null below top_n.",
        ),
        ("evidence_sentences", INTS, True, "Numbers of its sentences, from 0; null without evidence."),
        ("evidence_logit", F32, True, "The model's raw output for it alone; null without evidence."),
        ("evidence_score", F32, True, "The score of evidence_logit; null without evidence."),
        ("overflow_tokens", I32, False, "Tokens beyond max_length that the model did not see; 0 for most."),
        ("reused", BOOL, False, "The logit was carried over from an earlier run with the same fingerprints."),
        ("input_fingerprint", STR, False, "Hash of the exact model input and of the model: key of reuse."),
        ("model_fingerprint", STR, False, "Hash of the model's files, tokenizer, max_length and precision."),
        (
            "stale_since",
            STR,
            True,
            "Date of the earlier run that made this list, kept as the deadline came first; null in a fresh one.",
        ),
    ],
)

QUERIES = _table(
    "queries",
    1,
    [
        ("query_id", STR, False, "Id of the normalised query: 16 hex digits of its SHA-256."),
        ("query", STR, False, "The normalised query text."),
        ("count", I32, False, "Events of the query in the log's window."),
        ("rows", I32, False, "Number of its rows in `reranked`."),
        ("part", STR, False, "Name of the file of `reranked` that holds them."),
        ("row_group", I32, False, "Number of the row group in that file, from 0."),
        ("row", I32, False, "Number of its first row in that row group, from 0; the others follow."),
        ("stale_since", STR, True, "Date of the night that made its list; null where it is this night's."),
    ],
)

HARD_NEGATIVES = _table(
    "hard_negatives",
    2,
    [
        ("query_id", STR, False, "Id of the normalised query."),
        ("query", STR, False, "The normalised query text."),
        ("positive_id", STR, False, "passage_id of the positive."),
        ("positive", STR, False, "Title and text of the positive."),
        ("positive_logit", F32, False, "The model's logit of the positive."),
        ("negative_id", STR, False, "passage_id of the negative."),
        ("negative", STR, False, "Title and text of the negative."),
        ("negative_logit", F32, False, "The model's logit of the negative."),
        ("negative_rank", I32, False, "Rank of the negative after reranking, from 1."),
        ("negative_rank_before", I32, False, "Rank of the negative in BM25's order, from 1."),
        ("margin", F32, False, "Score of the positive minus the negative's; below 0: ranked wrong."),
        ("label_source", STR, False, "Where the positive's label comes from: clicks, qrels or answers."),
        ("kept_by", STR, False, "The rule that chose the negative: top, random or easy."),
        (
            "positive_tags",
            STR,
            False,
            "The positive's tags, rendered; empty without tags.",
        ),
        (
            "negative_tags",
            STR,
            False,
            "The negative's tags, rendered; empty without tags.",
        ),
        ("model_fingerprint", STR, False, "The model whose scores chose the negative."),
    ],
)

TRAINING_PAIRS = _table(
    "training_pairs",
    1,
    [
        ("query", STR, False, "The query side of the model input, tags included where the model reads them."),
        ("passage", STR, False, "The passage side of the model input."),
        ("label", F32, False, "1 for a positive, 0 for a mined negative."),
    ],
)

PASSAGE_TAGS = _table(
    "passage_tags",
    3,
    [
        ("passage_key", STR, False, "Hash of the unit's title and text and of what read it: key of reuse."),
        (
            "mentions",
            pa.list_(pa.field("element", MENTION, nullable=False)),
            False,
            "Named entities in the text: as spelled, PER, ORG, LOC or MISC, first and last character + 1.",
        ),
        ("words", I32, False, "Number of words in the text."),
        ("role", STR, False, "Rhetorical role of the text, one of the tagger's."),
        ("causal", BOOL, False, "Whether the text holds causal language."),
    ],
)

DEAD_LETTERS = _table(
    "dead_letters",
    2,
    [
        ("stage", STR, False, "Stage that could not handle the record."),
        ("unit", STR, False, "What one record of that stage is: event, query or pair."),
        ("record", STR, False, "Id of the record: file:line, query_id, or query_id/passage_id."),
        ("reason", STR, False, "Stable slug, to group by."),
        ("detail", STR, False, "The value, shortened, and the remedy."),
    ],
)

TABLES: dict[str, pa.Schema] = {
    "reranked": RERANKED,
    "queries": QUERIES,
    "hard_negatives": HARD_NEGATIVES,
    "training_pairs": TRAINING_PAIRS,
    "passage_tags": PASSAGE_TAGS,
    "dead_letters": DEAD_LETTERS,
}


def schema_version(schema: pa.Schema) -> int:
    """Version of a schema (or of a published file's schema).

    Raises:
        ValueError: the schema has none, so Nightrank did not write it.
    """
    raw = (schema.metadata or {}).get(b"schema_version")
    if raw is None:
        raise ValueError("the schema has no 'schema_version' metadata: not a table published by Nightrank")
    return int(raw)
