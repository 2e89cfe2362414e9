"""From a configuration to its source."""

from __future__ import annotations

import datetime

from pipelines.sources import Source
from pipelines.sources.local.source import LocalSource
from rerank_core.config.night import Config

Window = tuple[datetime.datetime, datetime.datetime]


def open_source(config: Config, window: Window | None = None) -> Source:
    """The source that the configuration names; one that can reads no events outside the window."""
    if config.source.kind == "elasticsearch":
        from pipelines.elasticsearch.source import ElasticsearchSource

        return ElasticsearchSource(config, window=window)
    return LocalSource(config)
