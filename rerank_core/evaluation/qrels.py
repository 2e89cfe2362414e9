"""Judgements as the field stores them: BEIR's queries.jsonl, qrels in BEIR's or TREC's layout, and TREC's run files.

The sets name their queries in their own way; `by_query_id` re-keys them to Nightrank's ids, which come from
the query's text, so that a query of the log meets its judgements.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rerank_core.errors import JudgementError
from rerank_core.text import query_id, shorten

Qrels = dict[str, dict[str, int]]
"""Relevance by query id, then by doc_id (or passage_id)."""

Opener = Callable[[str], AbstractContextManager[TextIO]]
"""Opens a path for reading text; pass one that knows gs:// to read from there."""


class BeirQuery(NamedTuple):
    """One query of a set in BEIR's layout."""

    text: str
    answers: tuple[str, ...]  # () where the set has none
    split: str  # "" where the set has none
    type: str = ""
    candidates: tuple[str, ...] = ()  # doc ids that the set itself gives; () where it gives none


def open_local(path: str) -> TextIO:
    """The default opener: UTF-8 files of this machine."""
    if "://" in path:
        raise JudgementError(f"{path} is not on this machine; copy it here")
    return open(path, encoding="utf-8-sig")  # a byte-order mark would else become a part of the first value


def read_queries(path: str | Path, *, opener: Opener = open_local) -> dict[str, BeirQuery]:
    """Queries of a BEIR queries.jsonl by their own `_id`; further fields are ignored.

    Raises:
        JudgementError: not JSON, no `_id` or `text`, `answers` or `candidates` not a list of strings, or an `_id`
            twice.
    """
    queries: dict[str, BeirQuery] = {}
    for where, line in _lines(path, opener):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise JudgementError(f"{where}: {shorten(line)!r} is not JSON ({error.msg})") from None
        name, query = _query(row, where)
        if name in queries:
            raise JudgementError(f"{where}: _id {name!r} occurs twice; give each query its own")
        queries[name] = query
    return queries


def read_qrels(path: str | Path, *, opener: Opener = open_local) -> Qrels:
    """Relevance by query and document, under the set's own ids.

    A line holds three columns, "query-id corpus-id score" (BEIR), or TREC's four, "qid 0 docid rel"; a header
    is skipped. Columns are separated by tabs, or by white space where a line has no tab. A pair judged twice
    keeps the higher relevance.

    Raises:
        JudgementError: another number of columns, or a relevance that is no whole number.
    """
    qrels: Qrels = {}
    layout = "'query-id corpus-id score' or 'qid 0 docid rel'"
    for where, cells in _rows(path, opener, widths=(3, 4), layout=layout):
        _add(qrels, cells[0], cells[-2], _whole(cells[-1], where, "relevance"))
    return qrels


def read_sentence_qrels(path: str | Path, *, opener: Opener = open_local) -> Qrels:
    """Relevance by query and passage_id "doc_id#n": lines hold "query-id corpus-id sentence score", n from 0.

    Raises:
        JudgementError: another number of columns, or a sentence or score that is no whole number.
    """
    qrels: Qrels = {}
    for where, cells in _rows(path, opener, widths=(4,), layout="'query-id corpus-id sentence score'"):
        sentence = _whole(cells[2], where, "sentence")
        if sentence < 0:
            raise JudgementError(f"{where}: sentence {sentence} is below 0; sentences are counted from 0")
        _add(qrels, cells[0], f"{cells[1]}#{sentence}", _whole(cells[3], where, "score"))
    return qrels


def read_run(path: str | Path, *, opener: Opener = open_local) -> dict[str, dict[str, float]]:
    """A TREC run file, "qid Q0 docid rank score tag": scores by query and document, best first.

    The order is by falling score, equal ones by rank and then doc id.

    Raises:
        JudgementError: another number of columns, a rank or score that is no number, or a document twice.
    """
    found: dict[str, list[tuple[float, int, str]]] = {}
    seen: set[tuple[str, str]] = set()
    for where, cells in _rows(path, opener, widths=(6,), layout="'qid Q0 docid rank score tag'"):
        query, _, item, rank, raw, _ = cells
        try:
            score = float(raw)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise JudgementError(f"{where}: score {raw!r} is not a number, so it has no place in an order")
        if (query, item) in seen:
            raise JudgementError(f"{where}: query {query!r} ranks {item!r} twice; keep one of the lines")
        seen.add((query, item))
        found.setdefault(query, []).append((-score, _whole(rank, where, "rank"), item))
    return {query: {item: -minus for minus, _, item in sorted(rows)} for query, rows in found.items()}


def by_query_id(queries: Mapping[str, BeirQuery], qrels: Mapping[str, Mapping[str, int]]) -> Qrels:
    """Judgements under Nightrank's query ids.

    Queries whose normalised texts are equal become one: the union of their judgements, the higher relevance
    where both judge a document. Queries without judgements stay absent, and so do judgements of queries that
    the set does not hold (a set's qrels are often wider than a sample of its queries).
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
        raise JudgementError(f"{where}: expected an object with _id and text, got {shorten(str(row))!r}")
    name, text = row.get("_id"), row.get("text")
    if not isinstance(name, str) or not isinstance(text, str):
        raise JudgementError(f"{where}: _id {name!r} and text {text!r} must both be strings")
    answers, candidates = (_strings(row, key, where) for key in ("answers", "candidates"))
    return name, BeirQuery(text, answers, str(row.get("split") or ""), str(row.get("type") or ""), candidates)


def _strings(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    held = row.get(key) or []
    if not isinstance(held, list) or not all(isinstance(one, str) for one in held):
        raise JudgementError(f"{where}: {key} {shorten(str(held))!r} must be a list of strings")
    return tuple(held)


def _lines(path: str | Path, opener: Opener) -> Iterator[tuple[str, str]]:
    """("file:line", line) of every line that is not blank."""
    try:
        with opener(str(path)) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise JudgementError(f"cannot read {path}: {error}") from None


def _rows(
    path: str | Path, opener: Opener, *, widths: tuple[int, ...], layout: str
) -> Iterator[tuple[str, list[str]]]:
    for number, (where, line) in enumerate(_lines(path, opener)):
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        if len(cells) not in widths:
            raise JudgementError(f"{where}: {len(cells)} columns in {shorten(line)!r}; expected {layout}")
        if number == 0 and cells[0].casefold() in ("query-id", "query_id", "qid"):
            continue
        yield where, cells


def _whole(value: str, where: str, column: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise JudgementError(f"{where}: {column} {value!r} is not a whole number") from None
