"""A dev set: judged queries with candidates, on which a training is measured."""

from __future__ import annotations

from typing import NamedTuple

MEASURE = "nDCG@10"
"""The measure by which the best model of a stage is chosen."""


class DevQuery(NamedTuple):
    """One judged query and the candidates to rank."""

    query_id: str
    query: str
    doc_ids: tuple[str, ...]
    passages: tuple[str, ...]
    tags: tuple[str, ...]  # rendered; "" where the model reads none


class DevSet(NamedTuple):
    """Judged queries with their candidates and judgements."""

    name: str
    queries: tuple[DevQuery, ...]
    qrels: dict[str, dict[str, int]]  # query_id -> doc_id -> relevance
