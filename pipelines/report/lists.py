"""Lists of single queries, before and after, as a page shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pipelines.report.movement import DEPTH, Found
from pipelines.report.sample import Row, read_lists
from pipelines.report.scan import ranks_of
from pipelines.report.text import legible
from rerank_core.features.render import render_tags
from schemas.tags import Tags

COLUMNS = [
    "query_id",
    "query",
    "doc_id",
    "passage_id",
    "title",
    "text",
    "rank",
    "doc_rank",
    "doc_rank_before",
    "bm25_score",
    "score",
    *Tags._fields,
    "evidence",
]
ROWS = 5  # documents of a list
EXCERPT = 240  # characters around the evidence


class Passage(NamedTuple):
    """One document of a list."""

    rank: int
    before: int | None  # None: it was not among the candidates
    name: str  # title, or the id where there is none
    doc_id: str
    score: float | None  # None: pruned
    bm25: float
    tags: list[str]
    chain: list[str]  # how the query leads here
    text: tuple[str, str, str]  # before the evidence, the evidence, after it
    relevant: bool | None  # None: not judged


class Left(NamedTuple):
    """A document that is no longer among the first ten."""

    name: str
    before: int
    rank: int | None  # None: it is not in the list


class ListView(NamedTuple):
    """A query's list, and the one that it is compared with."""

    query: str
    query_id: str
    value: float  # why it is shown: its movement, or its change in nDCG@10
    rows: list[Passage]
    left: list[Left]
    more: int  # documents of the list beyond the rows


def against_bm25(
    found: Iterable[Found], *, texts: bool, relevant: Mapping[str, Mapping[str, int]] | None = None
) -> list[ListView]:
    """The lists of some queries beside BM25's.

    Args:
        found: with the file that holds each.
        texts: show titles and texts; else ids alone.
        relevant: grades of judged queries' documents.
    """
    chosen = list(found)
    lists = read_lists({one.query_id: one.places[0] for one in chosen}, COLUMNS)
    grades = relevant or {}
    return [
        _view(one, rows, ranks_of(rows, "doc_id", "doc_rank_before"), {}, texts, grades.get(one.query_id))
        for one in chosen
        if (rows := lists[one.query_id])
    ]


def against_last_night(found: Iterable[Found], *, texts: bool) -> list[ListView]:
    """The lists of some queries beside last night's.

    Args:
        found: with the files that hold each tonight and last night.
        texts: show titles and texts; else ids alone.
    """
    chosen = list(found)
    lists = read_lists({one.query_id: one.places[0] for one in chosen}, COLUMNS)
    last = read_lists(
        {one.query_id: one.places[1] for one in chosen}, ["query_id", "doc_id", "title", "doc_rank"]
    )
    views = []
    for one in chosen:
        names = {row["doc_id"]: _name(row, texts) for row in last[one.query_id]}
        before = ranks_of(last[one.query_id], "doc_id", "doc_rank")
        if lists[one.query_id]:
            views.append(_view(one, lists[one.query_id], before, names, texts, None))
    return views


def _view(
    one: Found,
    rows: list[Row],
    before: dict[str, int],
    names: dict[str, str],
    texts: bool,
    grades: Mapping[str, int] | None,
) -> ListView:
    best = {row["doc_id"]: row for row in sorted(rows, key=lambda row: -row["rank"])}
    first = sorted(best.values(), key=lambda row: row["doc_rank"])
    names = names | {doc_id: _name(row, texts) for doc_id, row in best.items()}
    after = {doc_id: row["doc_rank"] for doc_id, row in best.items()}
    left = [
        Left(names[doc_id], rank, after.get(doc_id))
        for doc_id, rank in sorted(before.items(), key=lambda item: item[1])
        if rank <= DEPTH < after.get(doc_id, DEPTH + 1)
    ]
    passages = [_passage(row, before, texts, grades) for row in first[:ROWS]]
    return ListView(
        legible(rows[0]["query"]), one.query_id, one.value, passages, left[:ROWS], max(0, len(first) - ROWS)
    )


def _passage(row: Row, before: dict[str, int], texts: bool, grades: Mapping[str, int] | None) -> Passage:
    tags = Tags.from_row(row)
    return Passage(
        rank=row["doc_rank"],
        before=before.get(row["doc_id"]),
        name=_name(row, texts),
        doc_id=legible(row["doc_id"], 60),
        score=row["score"],
        bm25=row["bm25_score"],
        tags=[legible(tag.strip("[ ]"), 120) for tag in render_tags(tags).split("] ") if tag],
        chain=[legible(step, 60) for step in tags.hop_chain] if tags else [],
        text=excerpt(row["text"], row["evidence"]) if texts else ("", "", ""),
        relevant=None if grades is None else grades.get(row["doc_id"], 0) > 0,
    )


def _name(row: Row, texts: bool) -> str:
    return (legible(row["title"], 120) if texts else "") or legible(row["doc_id"], 60)


def excerpt(text: str | None, evidence: str | None) -> tuple[str, str, str]:
    """(what stands before, the evidence, what stands after), together a few lines; evidence "" if there is none."""
    if not text:
        return "", legible(evidence, 2 * EXCERPT), ""
    start = text.find(evidence) if evidence else -1
    if not evidence or start < 0:
        return (legible(text, EXCERPT), "", "") if not evidence else ("", legible(evidence, 2 * EXCERPT), "")
    before, after = text[:start].rstrip(), text[start + len(evidence) :].lstrip()
    opening = legible(before[-EXCERPT // 4 :], EXCERPT)
    if len(before) > EXCERPT // 4:
        opening = f"…{opening}"
    return opening, legible(evidence, 2 * EXCERPT), legible(after, EXCERPT // 4)
