"""Training data as others write it: what it means, and what is refused with its line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.exchange.parse import read
from pipelines.exchange.rows import Example
from rerank_core.errors import SourceError
from schemas.errors import ManifestError
from tests.support.local_data import write_lines


def examples(folder: Path, format: str, *rows: Any) -> list[Example]:
    return list(read(str(write_lines(folder / "a.jsonl", list(rows))), format))


def test_flagembedding_as_its_page_writes_it(tmp_path: Path) -> None:
    row = {
        "query": "Five women walk along a beach.",
        "pos": ["Some women walk.", "Women at the sea."],
        "neg": ["The 4 women sit.", "A man swims."],
        "pos_scores": [4, 3.5],
        "neg_scores": [-1, 0],
        "prompt": "Represent this sentence.",
        "type": "normal",
    }
    bare = {"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": None, "neg_scores": []}
    assert examples(tmp_path, "flagembedding", row, "", bare) == [
        Example(row["query"], "Some women walk.", tuple(row["neg"]), (4.0, -1.0, 0.0)),
        Example(row["query"], "Women at the sea.", tuple(row["neg"]), (3.5, -1.0, 0.0)),
        Example("q", "p", ("n",)),
    ]


def test_columns_go_by_their_order_and_labels_by_their_names(tmp_path: Path) -> None:
    triples = [{"question": "q", "answer": "p", "hard": one} for one in ("n1", "n2")]
    assert examples(tmp_path, "st-triplet", *triples) == [Example("q", "p", ("n1", "n2"))]
    pairs = [{"label": label, "a": "q", "b": text} for text, label in (("n1", 0), ("p", 1), ("n2", 0.2))]
    assert examples(tmp_path, "st-labeled-pair", *pairs) == [Example("q", "p", ("n1", "n2"))]
    lists = {"query": "q", "docs": ["n", "p1", "p2"], "scores": [0, 1, 1.0]}
    assert examples(tmp_path, "st-labeled-list", lists) == [
        Example("q", "p1", ("n",)),
        Example("q", "p2", ("n",)),
    ]


def test_gzip_a_byte_order_mark_and_parquet_are_read(tmp_path: Path) -> None:
    row = {"anchor": "q", "positive": "p", "negative": "n"}
    line = b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\r\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for name in ("a.jsonl.gz", "a.parquet"):
        assert list(read(str(tmp_path / name), "st-triplet")) == [Example("q", "p", ("n",))]


FLAG = {"query": "q", "pos": ["p"], "neg": ["n"]}
PAIR = {"anchor": "q", "document": "p", "label": 1}
BAD: list[tuple[str, Any, str]] = [
    ("flagembedding", "{", "must hold one JSON object"),
    ("flagembedding", "[1]", "expected a JSON object"),
    ("flagembedding", FLAG | {"query": None}, "the query is missing; it must be a string"),
    ("flagembedding", FLAG | {"query": " ?! "}, "the query is ' ?! ', which is empty; remove the record"),
    ("flagembedding", FLAG | {"pos": []}, "pos is empty; give at least one text, or remove the line"),
    ("flagembedding", FLAG | {"neg": "n"}, "neg is 'n'; it must be a list of texts"),
    ("flagembedding", FLAG | {"neg": ["n", 3]}, "neg is 3; it must be a string"),
    ("flagembedding", FLAG | {"pos": [" "]}, "pos is an empty text; remove it"),
    ("flagembedding", FLAG | {"pos_scores": [1]}, "pos_scores and neg_scores go together; add the other"),
    ("flagembedding", FLAG | {"pos_scores": [1, 2], "neg_scores": [1]}, "pos_scores must be a list of 1"),
    ("flagembedding", FLAG | {"pos_scores": ["1"], "neg_scores": [1]}, "a score is '1'; it must be a finite"),
    ("st-triplet", PAIR, "2 columns beside the label"),
    ("st-labeled-pair", {"anchor": "q", "document": "p"}, "there is no column label; add it"),
    ("st-labeled-pair", PAIR | {"label": 7.5}, "the label is 7.5; it must lie between 0"),
    ("st-labeled-pair", PAIR | {"label": True}, "the label is True; it must be a finite number"),
    ("st-labeled-pair", PAIR, "'q' has no negative beside it; put the rows of a query together"),
    ("st-labeled-pair", PAIR | {"label": 0}, "'q' has no positive beside it"),
    ("st-labeled-list", {"q": "q", "d": ["p"], "labels": [1, 0]}, "a list of as many labels"),
]


@pytest.mark.parametrize(("format", "row", "said"), BAD)
def test_a_record_that_cannot_be_used_is_named(tmp_path: Path, format: str, row: Any, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        examples(tmp_path, format, "", row)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.jsonl'}:2: ")
    assert said in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*absent\.jsonl"):
        list(read(str(tmp_path / "absent.jsonl"), "st-triplet"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ManifestError, match=r"a\.parquet is not a readable Parquet file"):
        list(read(str(tmp_path / "a.parquet"), "st-triplet"))
