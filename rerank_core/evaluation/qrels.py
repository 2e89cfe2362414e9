"""Reads judgements in their usual formats: BEIR's queries.jsonl, qrels in BEIR's or TREC's layout, TREC run files.

Every set has query ids of its own; `by_query_id` maps them to Nightrank's ids, which are hashes of the query's text,
so that judgements apply to the queries of a log.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rerank_core import files
from rerank_core.errors import JudgementError
from rerank_core.files import Opener
from rerank_core.querylog.privacy import shown
from rerank_core.text import query_id
from rerank_core.values import RecordError, decode_json, identifier, is_null, many, scalar

Qrels = dict[str, dict[str, int]]
"""Relevance by query id, then by doc_id (or passage_id)."""


class BeirQuery(NamedTuple):
    """One query of a set in BEIR's layout."""

    text: str
    answers: tuple[str, ...]  # () if the set has none
    split: str  # "" if the set has none
    type: str = ""
    candidates: tuple[str, ...] = ()  # doc ids to rank, where the set gives some


def open_local(path: str) -> BinaryIO:
    """The default opener: local files."""
    if "://" in path:
        raise JudgementError(f"{path} is not a local file; copy it to this machine")
    return files.open_local(path)


def read_queries(path: str | Path, *, opener: Opener = open_local) -> dict[str, BeirQuery]:
    """Queries of a BEIR queries.jsonl by their own `_id`; further fields are ignored.

    Raises:
        JudgementError: not UTF-8, not JSON, no `_id` or `text`, `answers` or `candidates` not a list of strings, or
            a duplicate `_id`.
    """
    queries: dict[str, BeirQuery] = {}
    for where, line in _lines(path, opener):
        try:
            row = decode_json(line)
        except RecordError as error:
            raise JudgementError(f"{where}: {error.detail}") from None
        name, query = _query(row, where)
        if name in queries:
            raise JudgementError(f"{where}: _id {shown(name)} occurs twice; give each query its own _id")
        queries[name] = query
    return queries


def read_qrels(path: str | Path, *, opener: Opener = open_local) -> Qrels:
    """Relevance by query and document, by the set's own ids.

    A line holds three columns, "query-id corpus-id score" (BEIR), or TREC's four, "qid 0 docid rel"; a header
    is skipped. Columns are separated by tabs, or by white space in a line without a tab. A pair judged twice
    keeps the higher relevance.

    Raises:
        JudgementError: another number of columns, or a relevance that is not an integer.
    """
    qrels: Qrels = {}
    layout = "'query-id corpus-id score' or 'qid 0 docid rel'"
    for where, cells in _rows(path, opener, widths=(3, 4), layout=layout):
        _add(qrels, cells[0], cells[-2], _integer(cells[-1], where, "relevance"))
    return qrels


def read_sentence_qrels(path: str | Path, *, opener: Opener = open_local) -> Qrels:
    """Relevance by query and passage_id "doc_id#n": lines hold "query-id corpus-id sentence score", n from 0.

    Raises:
        JudgementError: another number of columns, or a sentence or score that is not an integer.
    """
    qrels: Qrels = {}
    for where, cells in _rows(path, opener, widths=(4,), layout="'query-id corpus-id sentence score'"):
        sentence = _integer(cells[2], where, "sentence")
        if sentence < 0:
            raise JudgementError(f"{where}: sentence {sentence} is negative; sentences are numbered from 0")
        _add(qrels, cells[0], f"{cells[1]}#{sentence}", _integer(cells[3], where, "score"))
    return qrels


def read_run(path: str | Path, *, opener: Opener = open_local) -> dict[str, dict[str, float]]:
    """A TREC run file, "qid Q0 docid rank score tag": scores by query and document, best first.

    The order is by falling score, equal ones by rank and then doc id.

    Raises:
        JudgementError: another number of columns, a rank or score that is not a number, or a duplicate document.
    """
    run: dict[str, list[tuple[float, int, str]]] = {}
    seen: set[tuple[str, str]] = set()
    for where, cells in _rows(path, opener, widths=(6,), layout="'qid Q0 docid rank score tag'"):
        query, _, item, rank, raw, _ = cells
        try:
            score = float(raw)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise JudgementError(f"{where}: score {raw!r} is not a finite number")
        if (query, item) in seen:
            raise JudgementError(f"{where}: query {query!r} ranks {item!r} twice; remove one of the lines")
        seen.add((query, item))
        run.setdefault(query, []).append((-score, _integer(rank, where, "rank"), item))
    return {query: {item: -minus for minus, _, item in sorted(rows)} for query, rows in run.items()}


def by_query_id(queries: Mapping[str, BeirQuery], qrels: Mapping[str, Mapping[str, int]]) -> Qrels:
    """Judgements by Nightrank's query ids.

    Queries whose normalised texts are equal are merged: the union of their judgements, and the higher relevance if
    both judge a document. Queries without judgements are left out, and so are judgements of queries that are not
    given (a set's qrels often cover more than a sample of its queries).
    """
    merged: Qrels = {}
    for name, query in queries.items():
        for item, relevance in qrels.get(name, {}).items():
            _add(merged, query_id(query.text), item, relevance)
    return merged


def _add(qrels: Qrels, query: str, item: str, relevance: int) -> None:
    judged = qrels.setdefault(query, {})
    judged[item] = max(relevance, judged.get(item, relevance))


def _query(row: Any, where: str) -> tuple[str, BeirQuery]:
    if not isinstance(row, dict):
        raise JudgementError(f"{where}: expected an object with _id and text, found {shown(row)}")
    name, text = _word(row, "_id", where), _word(row, "text", where, numbers=False)
    if not name.strip():
        raise JudgementError(f"{where}: _id is {shown(name)}; it must not be empty")
    answers, candidates = (_words(row, key, where) for key in ("answers", "candidates"))
    split, kind = (
        "" if is_null(row.get(key)) or not row[key] else _word(row, key, where) for key in ("split", "type")
    )
    return name, BeirQuery(text, answers, split, kind, candidates)


def _word(row: Mapping[str, Any], key: str, where: str, *, numbers: bool = True) -> str:
    try:
        value = scalar(row.get(key))
        if not numbers and not isinstance(value, str):
            raise ValueError("a number is no text")
        return identifier(value)
    except ValueError:
        raise JudgementError(f"{where}: {key} is {shown(row.get(key))}; it must be a string") from None


def _words(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    try:
        return tuple(map(identifier, many(row.get(key))))
    except ValueError:
        raise JudgementError(f"{where}: {key} must be a list of strings, not {shown(row.get(key))}") from None


def _lines(path: str | Path, opener: Opener) -> Iterator[tuple[str, bytes]]:
    """("file:line", line) of every line that is not blank."""
    try:
        for number, line in enumerate(files.read_lines(path, opener=opener), start=1):
            if line.strip():
                yield f"{path}:{number}", line
    except OSError as error:
        raise JudgementError(f"cannot read {path}: {error}") from None


def _rows(
    path: str | Path, opener: Opener, *, widths: tuple[int, ...], layout: str
) -> Iterator[tuple[str, list[str]]]:
    for number, (where, raw) in enumerate(_lines(path, opener)):
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            byte = f"byte {raw[error.start]:#04x} at position {error.start + 1}"
            raise JudgementError(f"{where}: {byte} is not UTF-8; save the file as UTF-8") from None
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        if len(cells) not in widths:
            raise JudgementError(f"{where}: {len(cells)} columns in {shown(line)}; expected {layout}")
        if number == 0 and cells[0].casefold() in ("query-id", "query_id", "qid"):
            continue
        yield where, cells


def _integer(value: str, where: str, column: str) -> int:
    try:
        return int(value.removesuffix(".0"))  # pandas writes 1.0 where the column has a gap
    except ValueError:
        raise JudgementError(f"{where}: {column} {shown(value)} is not an integer") from None
