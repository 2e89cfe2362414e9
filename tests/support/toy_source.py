"""A source that holds its log and its documents in memory: what the README's "one file, one line" comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from rerank_core.config.night import Config
from rerank_core.querylog.events import Window
from rerank_core.text import fingerprint
from schemas.records import Document, LogEvent, Query, Rejected

EVENTS = [
    LogEvent("toy:1", "2026-03-05T10:00:00Z", "red apple", "u1", ("apple",), ()),
    LogEvent("toy:2", "2026-03-05T11:00:00Z", "Red apple?", "u2", (), ()),
    LogEvent("toy:3", "2026-03-05T12:00:00Z", "sour lemon", "u1", (), ()),
    LogEvent("toy:4", "2026-03-05T12:00:00Z", "blue whale", "u1", (), ()),
]
TEXTS = {"apple": "An apple may be red.", "cherry": "A cherry is red.", "lemon": "A lemon is sour."}


class ToySource:
    """Finds the documents that share a word with the query, most words first."""

    def __init__(self, config: Config, *, window: Window | None = None) -> None:
        self._events = EVENTS

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "toy",
            "log_fingerprint": fingerprint(repr(EVENTS)),
            "index_fingerprint": fingerprint(*TEXTS),
        }

    def events(self) -> beam.PTransform:
        return beam.Create(self._events).with_output_types(Any)

    def candidates(self, queries: Sequence[Query], *, top_k: int) -> list[list[Document] | Rejected]:
        return [self._search(query)[:top_k] or self._nothing(query) for query in queries]

    def _search(self, query: Query) -> list[Document]:
        words = set(query.text.lower().split())
        shared = {name: len(words & set(text.lower().rstrip(".").split())) for name, text in TEXTS.items()}
        order = sorted((name for name in TEXTS if shared[name]), key=lambda name: (-shared[name], name))
        return [
            Document(name, "", TEXTS[name], (), float(shared[name]), rank)
            for rank, name in enumerate(order, start=1)
        ]

    def _nothing(self, query: Query) -> Any:
        return Rejected("FetchCandidates", "query", query.query_id, "no_candidates", "no shared word")
