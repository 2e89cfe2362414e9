"""A cluster that is never asked, for tests of what needs no server."""

from __future__ import annotations

from typing import Any

from pipelines.elasticsearch.client import Settings, settings_of
from pipelines.elasticsearch.fields import Fields
from pipelines.elasticsearch.pit import LogQuery
from rerank_core.config.night import Config, parse_config
from rerank_core.config.source import LogFields
from schemas.records import Query


def config(**wanted: Any) -> Config:
    """A night over a cluster, with these values of `source.elasticsearch`."""
    places = {"url": "https://search.example:9200", "log_index": "log", "index": "docs"}
    return parse_config({"source": {"kind": "elasticsearch", "elasticsearch": places | wanted}})


def settings(**wanted: Any) -> Settings:
    """How that cluster is connected to."""
    return settings_of(config(**wanted).source.elasticsearch)


def query(text: str) -> Query:
    """A query of the night."""
    return Query("0123456789abcdef", text, 1, 1, ())


def log(**wanted: Any) -> LogQuery:
    """A query log of that cluster."""
    values = {
        "settings": settings(),
        "target": "log",
        "uuids": (),
        "query": {},
        "fields": LogFields(),
        "places": Fields(("timestamp", "query", "user", "clicks", "impressions")),
        "time_types": ("date",),
        "page_size": 5,
        "slices": 2,
        "slice_field": "_seq_no",
        "keep_alive": "1m",
        "max_retries": 2,
    }
    return LogQuery(**values | wanted)  # type: ignore[arg-type]
