"""From a configuration to its source. A source is one module, one line in SOURCES and one test."""

from __future__ import annotations

import pkgutil

from pipelines.sources.protocol import Source
from rerank_core.config.night import Config
from rerank_core.errors import ConfigError
from rerank_core.querylog.events import Window

SOURCES = {
    "local": "pipelines.sources.local.source:LocalSource",
    "elasticsearch": "pipelines.elasticsearch.source:ElasticsearchSource",
}
"""The values of source.kind, and the class of each; its module is imported only if it is used."""


def check_kind(config: Config) -> None:
    """Refuse a configuration whose source is not known.

    Raises:
        ConfigError: the message names the known ones.
    """
    if config.source.kind not in SOURCES:
        known = ", ".join(map(repr, SOURCES))
        raise ConfigError(f"'source.kind' = {config.source.kind!r}: no such source; known are {known}")


def open_source(config: Config, *, window: Window | None = None) -> Source:
    """The source that the configuration names.

    Args:
        config: the night's configuration.
        window: [start, end) in UTC; a source that can filter reads no events outside it. None: all events.

    Raises:
        ConfigError: an unknown source, or a key that the source needs is not set.
    """
    check_kind(config)
    source: Source = pkgutil.resolve_name(SOURCES[config.source.kind])(config, window=window)
    return source
