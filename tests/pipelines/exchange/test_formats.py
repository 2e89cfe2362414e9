"""Every format read back by the tools that read it: what is written is what they see, or it is refused."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.exchange import formats
from pipelines.exchange.parse import read
from pipelines.exchange.rows import Example, RankedList, ordered
from rerank_core.evaluation.qrels import read_qrels, read_run
from schemas.errors import ManifestError

# Whatever a program may have put into an index: white space of every kind, quotes, separators, other scripts.
STRANGE = st.text(
    st.sampled_from("ab#\"\t\n\r\x0b\x1c\x85\xa0\u2028 '\\,%é日\U0001f600\x00")
    | st.characters(exclude_categories=["Cs"])
)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
LOGITS = st.sampled_from([0.0, -0.0, 0.1, 1.5, -3.25]) | st.floats(-100, 100, width=32)  # ties are usual
TEXTS = STRANGE.filter(str.strip)


@st.composite
def ranked_lists(draw: Any) -> RankedList:
    """A list with ties, pruned rows, and fused logits or none; several units a document."""
    units = draw(st.lists(STRANGE, min_size=1, max_size=6, unique=True))
    ranks = draw(st.permutations(range(1, len(units) + 1)))
    falling = sorted(draw(st.lists(LOGITS, min_size=len(units), max_size=len(units))), reverse=True)
    bm25 = sorted(draw(st.lists(LOGITS, min_size=len(units), max_size=len(units))), reverse=True)
    scored, fused = draw(st.integers(0, len(units))), draw(st.booleans())
    rows = [
        {
            "query_id": "0123456789abcdef",
            "query": "q",
            "doc_id": unit[: max(1, len(unit) - 1)],
            "passage_id": unit,
            "title": draw(st.none() | STRANGE),
            "text": draw(STRANGE),
            "rank": at,
            "rank_before": ranks[at - 1],
            "bm25_score": bm25[ranks[at - 1] - 1],
            "logit": falling[at - 1] if at <= scored else None,
            "fused_logit": falling[at - 1] if fused and at <= scored else None,
        }
        for at, unit in enumerate(units, start=1)
    ]
    return RankedList("0123456789abcdef", "q", draw(st.permutations(rows)))


@st.composite
def examples(draw: Any, *, logits: bool = True) -> Example:
    passages = draw(st.lists(TEXTS, min_size=2, max_size=5, unique=True))
    count = st.lists(FLOATS, min_size=len(passages), max_size=len(passages))
    ids = tuple(f"d{n}" for n in range(len(passages)))
    scores = tuple(draw(count)) if logits else ()
    return Example(
        draw(st.sampled_from(["a query", '日本 "q"\t2'])), passages[0], tuple(passages[1:]), scores, "", ids
    )


def in_file(name: str, data: bytes, reader: Callable[[str], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        return reader(str(path))


@given(ranked_lists(), st.sampled_from(["reranked", "bm25"]))
def test_a_trec_run_is_read_as_published_or_refused(found: RankedList, side: Any) -> None:
    order = [row["doc_id"] for row, _ in ordered(found, side, by="doc_id")]
    rank = {"bm25": "rank_before", "reranked": "rank"}[side]
    best = sorted(found.rows, key=lambda row: row[rank])
    assert order == list(dict.fromkeys(row["doc_id"] for row in best))
    if any(item.split() != [item] for item in order):
        with pytest.raises(ManifestError, match=r"TREC's format has no place"):
            list(formats.trec_run(found, side))
        return
    data = b"".join(formats.trec_run(found, side))
    ours = in_file("a.run", data, read_run)[found.query_id]
    theirs = list(ir_measures.read_trec_run(io.StringIO(data.decode(), newline="\n")))
    assert list(ours) == [one.doc_id for one in theirs] == order
    assert [np.float32(one.score) for one in theirs] == [np.float32(score) for score in ours.values()]
    for position, item in enumerate(order, start=1):  # trec_eval sorts by score, and equal ones by id
        qrels = [ir_measures.Qrel(found.query_id, item, 1)]
        (value,) = ir_measures.pytrec_eval.calc([ir_measures.RR], qrels, theirs)[0].values()
        assert value == pytest.approx(1 / position, rel=1e-6)


@given(ranked_lists(), st.sampled_from(["reranked", "bm25"]))
def test_scores_are_the_published_ones_wherever_they_fall(found: RankedList, side: Any) -> None:
    scored = ordered(found, side, by="passage_id")
    values = [score for _, score in scored]
    assert all(one > other for one, other in itertools.pairwise(values))
    assert all(np.float32(value) == value for value in values)
    last = np.inf
    for row, score in scored:
        own = row["bm25_score"] if side == "bm25" else row["logit"]
        assert own is None or np.float32(own) >= last or np.float32(own) == score
        last = score


@given(STRANGE)
def test_judgements_are_read_by_beirs_rule_and_ours_or_refused(item: str) -> None:
    try:
        data = f"query-id\tcorpus-id\tscore\n0123\t{formats.tsv_id(item)}\t1\n"
    except ManifestError:
        assert item != item.strip() or not item or item[0] == '"' or set(item) & set("\t\n\r")
        return
    assert in_file("dev.tsv", data.encode(), read_qrels) == {"0123": {item: 1}}

    def as_beir(path: str) -> list[list[str]]:
        with open(path, encoding="utf-8") as file:
            return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL))

    assert in_file("dev.tsv", data.encode(), as_beir)[1] == ["0123", item, "1"]


@given(ranked_lists())
def test_a_request_of_rankllm_holds_every_unit_with_its_text(found: RankedList) -> None:
    line = formats.json_line(formats.rankllm(found, "reranked", run_id="r"))
    assert line.count(b"\n") == 1
    request = json.loads(line)
    rows = sorted(found.rows, key=lambda row: row["rank"])
    assert request["query"] == {"text": "q", "qid": found.query_id}
    assert [one["docid"] for one in request["candidates"]] == [row["passage_id"] for row in rows]
    assert [one["doc"] for one in request["candidates"]] == [
        {"title": row["title"] or "", "text": row["text"]} for row in rows
    ]
    assert all(isinstance(one["score"], float) for one in request["candidates"])


def test_a_run_without_texts_is_refused() -> None:
    row = {"doc_id": "d", "passage_id": "d", "rank": 1, "rank_before": 1, "bm25_score": 1.0}
    row |= {"logit": 1.0, "fused_logit": None, "title": None, "text": None}
    with pytest.raises(ManifestError, match=r"run r has no texts; publish one with output\.store_text"):
        formats.rankllm(RankedList("q", "q", [row]), "reranked", run_id="r")


@given(st.lists(examples(), min_size=1, max_size=4))
def test_flagembedding_comes_back_whole(given_: list[Example]) -> None:
    lines = [formats.json_line(formats.flagembedding(one)) for one in given_]
    found = in_file("a.jsonl", b"".join(lines), lambda path: list(read(path, "flagembedding")))
    assert found == given_
    assert all(
        np.array_equal(np.float32(one.logits), np.float32(other.logits))
        for one, other in zip(found, given_, strict=True)
    )


SHAPES: dict[str, tuple[Callable[[Example], Any], pa.Schema]] = {
    "st-triplet": (formats.triplets, formats.TRIPLET),
    "st-labeled-pair": (formats.labeled_pairs, formats.LABELED_PAIR),
    "st-labeled-list": (formats.labeled_lists, formats.LABELED_LIST),
}


def merged(given_: list[Example], format: str) -> list[Example]:
    """What a format without ids and scores keeps apart: neighbours of one query (and positive) are one."""
    bare = [one._replace(logits=(), ids=()) for one in given_]
    if format == "st-labeled-list":
        return bare
    found: list[Example] = []
    for _, group in itertools.groupby(bare, key=lambda one: one[:2] if format == "st-triplet" else one.query):
        same = list(group)
        negatives = tuple(text for one in same for text in one.negatives)
        positives = [same[0].positive] if format == "st-triplet" else [one.positive for one in same]
        found += [Example(same[0].query, positive, negatives) for positive in positives]
    return found


@given(st.lists(examples(), min_size=1, max_size=3), st.sampled_from(sorted(SHAPES)), st.booleans())
@settings(max_examples=60)
def test_sentence_transformers_shapes_come_back(given_: list[Example], format: str, parquet: bool) -> None:
    convert, schema = SHAPES[format]
    rows = [row for one in given_ for row in convert(one)]
    if parquet:
        sink = io.BytesIO()
        pq.write_table(pa.concat_tables(formats.tables(iter(rows), schema, size=2)), sink)
        name, data = "a.parquet", sink.getvalue()
    else:
        name, data = "a.jsonl", b"".join(map(formats.json_line, rows))
    assert in_file(name, data, lambda path: list(read(path, format))) == merged(given_, format)


@given(examples())
@settings(max_examples=5)
def test_datasets_reads_the_rows_as_they_were(one: Example) -> None:
    rows = list(formats.triplets(one))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(b"".join(map(formats.json_line, rows)))
        loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=folder)
        assert loaded.to_list() == rows
