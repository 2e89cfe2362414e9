"""What both adapters make of a published list, and of passages that are ranked live."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import nightrank
from nightrank.read import Passage, QueryList, Reader

Unknown = Literal["empty", "raise"]
"""What a query gives that the run does not have: no passages, or QueryNotFound."""


def find(reader: Reader, query: str, *, unknown: Unknown, nearest: bool) -> QueryList | None:
    """The published list of a query; None for an unknown one.

    Raises:
        QueryNotFound: an unknown one, with unknown="raise".
    """
    if unknown == "raise":
        return reader.lookup(query, nearest=nearest)
    return reader.lookup(query, nearest=nearest, default=None)


def text_of(passage: Passage, found: QueryList) -> str:
    """The text of a passage.

    Raises:
        ValueError: the run has none; an empty context would go unseen.
    """
    if passage.text is None:
        raise ValueError(
            f"run {found.run_id} has no texts; publish one with output.store_text = true, or look up doc_id by "
            "nightrank.read"
        )
    return passage.text


def metadata_of(passage: Passage, found: QueryList) -> dict[str, Any]:
    """What is known of a passage, and of the list that it is from, as JSON would hold it."""
    return {
        "title": passage.title,
        "doc_id": passage.doc_id,
        "rank": passage.rank,
        "score": passage.score,
        "evidence": passage.evidence,
        "tags": tags_of(passage.tags),
        "query": found.query,
        "similarity": found.similarity,
        "stale_since": passage.stale_since or found.stale_since,
        "run_id": found.run_id,
        "run_date": found.run_date,
    }


def tags_of(tags: Any) -> dict[str, Any] | None:
    """Tags by name, sequences as lists; None without tags."""
    if tags is None:
        return None
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in tags._asdict().items()
    }


def rerank(
    query: str,
    passages: Sequence[tuple[str, str]],
    scores: Sequence[float | None],
    *,
    model: str | None,
    top_n: int | None,
    options: dict[str, Any],
) -> list[Any]:
    """`nightrank.rank` with the retriever's scores; where one is missing, its order takes their place."""
    known = [score for score in scores if score is not None and math.isfinite(score)]
    if len(known) < len(passages):
        known = [-math.log(place) for place in range(1, len(passages) + 1)]
    return nightrank.rank(query, passages, first_stage_scores=known, model=model, top_n=top_n, **options)
