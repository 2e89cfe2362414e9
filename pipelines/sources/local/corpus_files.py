"""A corpus on disk: JSONL of {_id, title?, text, sentences?}, or a BEIR folder with such a file; also gzipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rerank_core.errors import SourceError
from rerank_core.files import plain_or_gz, read_lines
from rerank_core.querylog.privacy import shown
from rerank_core.text import utf8
from rerank_core.values import RecordError, decode_json, identifier, many, scalar


class CorpusPassage(NamedTuple):
    """One line of a corpus."""

    doc_id: str
    title: str
    text: str
    sentences: tuple[str, ...]


class LineError(RecordError):
    """A corpus line that cannot be indexed."""


def corpus_file(corpus: Path) -> Path:
    """The JSONL file of a corpus.

    Raises:
        SourceError: there is none.
    """
    file = plain_or_gz(corpus / "corpus.jsonl" if corpus.is_dir() else corpus)
    if not file.is_file():
        expected = "give a JSONL file of {_id, title, text}, or a folder with a corpus.jsonl"
        raise SourceError(f"no corpus at {file}; {expected}")
    return file


def corpus_lines(corpus: Path) -> Iterator[bytes]:
    """The lines of a corpus' file.

    Raises:
        SourceError: there is none, or it cannot be read to its end.
    """
    file = corpus_file(corpus)
    try:
        yield from read_lines(file)
    except OSError as error:
        raise SourceError(f"the corpus {file} cannot be read: {error}") from None


def parse_passage(line: bytes, *, seen: set[str]) -> CorpusPassage:
    """One corpus line as a passage; `seen` are the ids of the lines before it.

    Raises:
        LineError: bad_utf8, bad_json, no_id, bad_field, empty or duplicate_id.
    """
    try:
        raw = decode_json(line)
    except RecordError as error:
        raise LineError(error.reason, error.detail) from None
    if not isinstance(raw, dict):
        raise LineError("bad_json", f"expected an object, found {shown(raw)}")
    doc_id = _doc_id(raw.get("_id"))
    title, text = _text(raw, "title"), _text(raw, "text")
    sentences = tuple(_text({"sentences": one}, "sentences") for one in _sentences(raw.get("sentences")))
    if not title.strip() and not text.strip():
        raise LineError("empty", f"document {shown(doc_id)} has neither a text nor a title")
    if doc_id in seen:
        raise LineError("duplicate_id", f"'_id' {shown(doc_id)} is on an earlier line too; that line is used")
    return CorpusPassage(doc_id, title, text, sentences)


def _doc_id(value: Any) -> str:
    try:
        if (doc_id := identifier(scalar(value))).strip():
            return doc_id
    except ValueError:
        pass
    raise LineError("no_id", f"'_id' is {shown(value)}; it must be a string that is not empty, or an integer")


def _text(raw: dict[str, Any], name: str) -> str:
    """The text of a field; "" where it is missing, or null."""
    try:
        value = scalar(raw.get(name))
    except ValueError as error:
        raise LineError("bad_field", f"'{name}' is {error}; it must be a string") from None
    if value is not None and not isinstance(value, str):
        raise LineError("bad_field", f"'{name}' is {shown(value)}; it must be a string")
    return utf8(value or "")


def _sentences(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else many(value)
