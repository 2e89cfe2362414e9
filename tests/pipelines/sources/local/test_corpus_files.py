"""A line of a corpus is a passage, or says why it is none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.local.corpus_files import (
    CorpusPassage,
    LineError,
    corpus_file,
    corpus_lines,
    parse_passage,
)
from rerank_core.errors import SourceError


def parsed(row: Any, *, seen: frozenset[str] = frozenset()) -> CorpusPassage | LineError:
    line = row if isinstance(row, bytes) else json.dumps(row).encode()
    try:
        return parse_passage(line, seen=set(seen))
    except LineError as error:
        return error


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"_id": 7, "title": None, "text": "a"}, CorpusPassage("7", "", "a", ())),
        ({"_id": 7.0, "title": float("nan"), "text": "a"}, CorpusPassage("7", "", "a", ())),
        ({"_id": ["7"], "title": ["t"], "text": ["a"]}, CorpusPassage("7", "t", "a", ())),
        ({"_id": "7", "text": "a", "sentences": "[1] a"}, CorpusPassage("7", "", "a", ("[1] a",))),
        ({"_id": "7", "text": "a\ud800", "sentences": ["a\ud800"]}, CorpusPassage("7", "", "a", ("a",))),
        (b'\xef\xbb\xbf{"_id": "7", "text": "a"}\r', CorpusPassage("7", "", "a", ())),
    ],
)
def test_what_is_the_same_passage(row: Any, expected: CorpusPassage) -> None:
    assert parsed(row) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"_id": 7.5, "text": "a"}, "no_id"),
        ({"_id": True, "text": "a"}, "no_id"),
        ({"_id": "", "text": "a"}, "no_id"),
        ({"_id": "7", "text": 0}, "bad_field"),
        ({"_id": "7", "text": False, "title": "t"}, "bad_field"),
        ({"_id": "7", "text": {}, "title": "t"}, "bad_field"),
        ({"_id": "7", "text": ["a", "b"]}, "bad_field"),
        ({"_id": "7", "text": "a", "sentences": [1]}, "bad_field"),
        ({"_id": "7", "text": "a", "sentences": {"a": 1}}, "bad_field"),
        ({"_id": "7", "title": "  ", "text": None}, "empty"),
        ({"_id": 1, "text": "a"}, "duplicate_id"),
        (b"[" * 5000, "bad_json"),
        (b'{"_id": ' + b"9" * 5000 + b"}", "bad_json"),
        (b'{"_id": "caf\xe9"}', "bad_utf8"),
        ([], "bad_json"),
    ],
)
def test_why_a_line_is_no_passage(row: Any, reason: str) -> None:
    error = parsed(row, seen=frozenset({"1"}))
    assert isinstance(error, LineError)
    assert error.reason == reason


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
fields = st.sampled_from(["_id", "title", "text", "sentences", "metadata"])


@given(st.dictionaries(fields, anything) | anything | st.binary(max_size=20))
def test_any_line_is_a_passage_or_says_why_not(row: Any) -> None:
    found = parsed(row)
    if isinstance(found, LineError):
        assert found.reason.isidentifier()
        found.detail.encode()
    else:
        " ".join([*found[:3], *found.sentences]).encode()
        assert found.doc_id.strip()


def test_a_corpus_may_be_compressed(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"_id": "1", "text": "a"}\r\n'
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(content))
    assert corpus_file(tmp_path) == tmp_path / "corpus.jsonl.gz"
    assert list(corpus_lines(tmp_path)) == [b'{"_id": "1", "text": "a"}']
    for damaged in (gzip.compress(content)[:-9], content.decode().encode("utf-16")):
        (tmp_path / "corpus.jsonl.gz").write_bytes(damaged)
        with pytest.raises(SourceError, match=r"the corpus .*corpus\.jsonl\.gz cannot be read"):
            list(corpus_lines(tmp_path))
