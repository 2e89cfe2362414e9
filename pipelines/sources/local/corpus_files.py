"""A corpus on disk: JSONL of {_id, title?, text, sentences?}, or a BEIR folder with such a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from rerank_core.errors import SourceError
from rerank_core.text import shorten, utf8


class CorpusPassage(NamedTuple):
    """One line of a corpus."""

    doc_id: str
    title: str
    text: str
    sentences: tuple[str, ...]


class LineError(ValueError):
    """A corpus line that cannot be indexed; `args` are the reason (a slug) and the detail."""


def corpus_file(corpus: Path) -> Path:
    """The JSONL file of a corpus.

    Raises:
        SourceError: there is none.
    """
    file = corpus / "corpus.jsonl" if corpus.is_dir() else corpus
    if not file.is_file():
        expected = "give a JSONL file of {_id, title, text}, or a folder with a corpus.jsonl"
        raise SourceError(f"no corpus at {file}; {expected}")
    return file


def parse_passage(line: bytes, *, seen: set[str]) -> CorpusPassage:
    """One corpus line as a passage; `seen` are the ids of the lines before it.

    Raises:
        LineError: bad_json, no_id, bad_field, empty or duplicate_id.
    """

    def shown(value: Any) -> str:
        return shorten(repr(value), limit=80)

    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError(
            "bad_json", f"{error}: {shorten(line.decode('utf-8', 'replace'), limit=80)}"
        ) from None
    if not isinstance(raw, dict):
        raise LineError("bad_json", f"expected an object, found {shown(raw)}")
    doc_id = raw.get("_id")
    if isinstance(doc_id, int) and not isinstance(doc_id, bool):
        doc_id = str(doc_id)
    if not isinstance(doc_id, str) or not utf8(doc_id).strip():
        raise LineError("no_id", f"'_id' is {shown(doc_id)}; it must be a non-empty string")
    title, text = raw.get("title") or "", raw.get("text") or ""
    sentences = raw.get("sentences") or []
    for name, value in (("title", title), ("text", text)):
        if not isinstance(value, str):
            raise LineError("bad_field", f"'{name}' is {shown(value)}; it must be a string")
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise LineError("bad_field", f"'sentences' is {shown(sentences)}; it must be a list of strings")
    passage = CorpusPassage(utf8(doc_id), utf8(title), utf8(text), tuple(utf8(part) for part in sentences))
    if not passage.title.strip() and not passage.text.strip():
        raise LineError("empty", f"document {shown(doc_id)} has neither a text nor a title")
    if passage.doc_id in seen:
        raise LineError("duplicate_id", f"'_id' {shown(doc_id)} is on an earlier line too; that line is used")
    return passage
