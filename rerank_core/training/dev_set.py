"""A judged set of queries with candidates."""

from __future__ import annotations

from typing import NamedTuple

MEASURE = "nDCG@10"
"""What the best model of a stage is chosen by."""


class DevQuery(NamedTuple):
    """One judged query and the candidates to rank."""

    query_id: str
    query: str
    doc_ids: tuple[str, ...]
    passages: tuple[str, ...]
    tags: tuple[str, ...]  # rendered; "" where the model is given none


class DevSet(NamedTuple):
    """What a model is measured on."""

    name: str
    queries: tuple[DevQuery, ...]
    qrels: dict[str, dict[str, int]]
