"""Training data in the formats of FlagEmbedding and sentence-transformers, read an example at a time.

A file is JSON lines (also gzipped) or Parquet. What cannot be used is an error that names the file, the line and the
remedy: a part of a training set is not silently left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.exchange.rows import Example
from pipelines.storage import filesystem
from rerank_core.errors import SourceError
from rerank_core.files import read_lines
from rerank_core.querylog.privacy import shown
from rerank_core.text import normalise_query, utf8
from rerank_core.values import RecordError, decode_json

Located = tuple[str, dict[str, Any]]
"""("file:line", record)"""

_LABELS = ("label", "labels", "score", "scores")
"""Columns that sentence-transformers takes for labels, wherever they stand."""


def read(path: str, format: str) -> Iterator[Example]:
    """The examples of a file, in its order; adjacent ones of one query are left beside each other.

    Raises:
        SourceError: the file cannot be read, or a record cannot be used; the message names it and the remedy.
    """
    yield from FORMATS[format](_records(path))


def _records(path: str) -> Iterator[Located]:
    if path.endswith(".parquet"):
        file = filesystem.open_parquet(path)
        names = file.schema_arrow.names
        rows = (
            row
            for batch in filesystem.read_batches(file, path, columns=names, batch_size=1024)
            for row in batch.to_pylist()
        )
        yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, start=1))
        return
    try:
        for number, line in enumerate(read_lines(path, opener=filesystem.open_binary), start=1):
            if line.strip():
                where = f"{path}:{number}"
                yield where, _object(line, where)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error}") from None


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = decode_json(line)
    except RecordError as error:
        raise SourceError(f"{where}: {error.detail}") from None
    if not isinstance(record, dict):
        raise SourceError(f"{where}: expected a JSON object, found {shown(record)}")
    return record


def _flagembedding(records: Iterator[Located]) -> Iterator[Example]:
    for where, row in records:
        query = _query(row.get("query"), where)
        sides = {
            side: [_text(one, where, side) for one in _list(row, side, where)] for side in ("pos", "neg")
        }
        for side, found in sides.items():
            if not found:
                raise SourceError(f"{where}: {side} is empty; give at least one text, or remove the line")
        scores, ids = (
            {side: _beside(row, f"{side}_{kind}", sides[side], where) for side in sides}
            for kind in ("scores", "id")
        )
        if bool(scores["pos"]) != bool(scores["neg"]):
            raise SourceError(
                f"{where}: pos_scores and neg_scores go together; add the other, or remove both"
            )
        for number, positive in enumerate(sides["pos"]):
            logits = [scores["pos"][number], *scores["neg"]] if scores["pos"] else []
            names = [ids["pos"][number], *ids["neg"]] if ids["pos"] and ids["neg"] else []
            yield Example(
                query,
                positive,
                tuple(sides["neg"]),
                tuple(_number(one, where, "a score") for one in logits),
                ids=tuple(map(str, names)),
            )


def _triplets(records: Iterator[Located]) -> Iterator[Example]:
    rows = ((where, _columns(row, 3, where)) for where, row in records)
    for _, adjacent in itertools.groupby(rows, key=lambda row: row[1][:2]):
        found = list(adjacent)
        where, (query, positive, _) = found[0]
        negatives = (_text(row[2], at, "the negative") for at, row in found)
        yield Example(_query(query, where), _text(positive, where, "the positive"), tuple(negatives))


def _labeled_pairs(records: Iterator[Located]) -> Iterator[Example]:
    rows = ((where, _columns(row, 2, where), _label(row, where)) for where, row in records)
    for _, adjacent in itertools.groupby(rows, key=lambda row: row[1][0]):
        found = list(adjacent)
        where = found[0][0]
        passages = [(_text(row[1], at, "the passage"), _share(label, at)) for at, row, label in found]
        yield from _labelled(_query(found[0][1][0], where), passages, where)


def _labeled_lists(records: Iterator[Located]) -> Iterator[Example]:
    for where, row in records:
        query, documents = _columns(row, 2, where)
        labels = _label(row, where)
        if not isinstance(documents, list) or not isinstance(labels, list) or len(documents) != len(labels):
            raise SourceError(f"{where}: expected a list of texts, and a list of as many labels")
        passages = [
            (_text(one, where, "a passage"), _share(label, where))
            for one, label in zip(documents, labels, strict=True)
        ]
        yield from _labelled(_query(query, where), passages, where)


def _labelled(query: str, passages: Sequence[tuple[str, float]], where: str) -> Iterator[Example]:
    """An example a positive, with all negatives of the query."""
    sides: dict[bool, list[str]] = {True: [], False: []}
    for passage, label in passages:
        sides[label >= 0.5].append(passage)
    if not all(sides.values()):
        missing = "negative" if sides[True] else "positive"
        raise SourceError(
            f"{where}: {shown(query)} has no {missing} beside it; put the rows of a query together, or remove them"
        )
    for positive in sides[True]:
        yield Example(query, positive, tuple(sides[False]))


FORMATS: dict[str, Callable[[Iterator[Located]], Iterator[Example]]] = {
    "flagembedding": _flagembedding,
    "st-triplet": _triplets,
    "st-labeled-pair": _labeled_pairs,
    "st-labeled-list": _labeled_lists,
}
"""How each format is read."""


def _columns(row: dict[str, Any], count: int, where: str) -> list[Any]:
    """The columns that are no labels, in their order, by which sentence-transformers goes."""
    columns = [value for name, value in row.items() if name not in _LABELS]
    if len(columns) != count:
        raise SourceError(
            f"{where}: {len(columns)} columns beside the label, {shown(list(row))}; the format has {count}"
        )
    return columns


def _label(row: dict[str, Any], where: str) -> Any:
    for name in _LABELS:
        if name in row:
            return row[name]
    raise SourceError(f"{where}: there is no column label; add it: 1 for a positive, 0 for a negative")


def _share(value: Any, where: str) -> float:
    number = _number(value, where, "the label")
    if not 0 <= number <= 1:
        raise SourceError(
            f"{where}: the label is {number:g}; it must lie between 0 (negative) and 1 (positive)"
        )
    return number


def _number(value: Any, where: str, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SourceError(f"{where}: {what} is {shown(value)}; it must be a finite number")
    return float(value)


def _query(value: Any, where: str) -> str:
    text = _text(value, where, "the query")
    if not normalise_query(text):
        raise SourceError(f"{where}: the query is {shown(text)}, which is empty; remove the record")
    return text


def _text(value: Any, where: str, what: str) -> str:
    if not isinstance(value, str):
        raise SourceError(f"{where}: {what} is {_shown(value)}; it must be a string")
    if not (text := utf8(value)).strip():
        raise SourceError(f"{where}: {what} is an empty text; remove it")
    return text


def _shown(value: Any) -> str:
    return "missing" if value is None else shown(value)


def _list(row: dict[str, Any], name: str, where: str) -> list[Any]:
    if not isinstance(row.get(name), list):
        raise SourceError(f"{where}: {name} is {_shown(row.get(name))}; it must be a list of texts")
    return list(row[name])


def _beside(row: dict[str, Any], name: str, texts: list[str], where: str) -> list[Any]:
    """A list with an entry for each text; [] if there is none."""
    found = row.get(name) or []
    if not isinstance(found, list) or len(found) not in (0, len(texts)):
        raise SourceError(f"{where}: {name} must be a list of {len(texts)}, one for each text")
    return list(found)
