"""The sections of a night's configuration about what is read: the log, whose queries are kept, and their candidates."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from rerank_core.config.toml import STRICT, NonNegative, Positive
from rerank_core.values import comparable

# As the readers of a log compare values: TOML's true and 3 are the text of JSON's.
FilterValue = Annotated[str, BeforeValidator(lambda value: comparable(value) or value)]


@dataclass(frozen=True, config=STRICT)
class LogFields:
    """Names of the log's columns; "" means that the log has no such column."""

    timestamp: str = "timestamp"
    query: str = "query"
    user: str = "user"
    clicks: str = "clicks"
    impressions: str = "impressions"


@dataclass(frozen=True, config=STRICT)
class Elasticsearch:
    """How a cluster is read. Credentials are read from NIGHTRANK_ES_* environment variables."""

    url: str = ""
    cloud_id: str = ""
    log_index: str = ""
    index: str = ""
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""
    verify_tls: bool = True
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    max_retries: NonNegative = 8
    concurrency: Positive = 4
    page_size: Annotated[int, Field(gt=0, le=10_000)] = 5000
    slices: Annotated[int, Field(gt=0, le=1024)] = 4
    slice_field: Annotated[str, Field(min_length=1)] = "_seq_no"
    keep_alive: Annotated[str, Field(pattern=r"^[1-9]\d*[smh]$")] = "5m"
    title_field: str = "title"
    text_fields: tuple[Annotated[str, Field(min_length=1)], ...] = ("text",)
    sentences_field: str = ""
    tiebreak_field: str = ""
    query_template: str = ""
    filter: str | dict[str, Any] = dataclasses.field(default_factory=dict)
    msearch_size: Positive = 50
    scores_only: bool = False

    def __post_init__(self) -> None:
        if not self.title_field and not self.text_fields:
            raise ValueError("neither title_field nor text_fields names a field: there is nothing to score")


@dataclass(frozen=True, config=STRICT)
class Local:
    """How the embedded index is searched; what it holds is decided by `nightrank index`."""

    ignore_stop_words: bool = True


@dataclass(frozen=True, config=STRICT)
class Source:
    """Where the query log and the candidates come from."""

    kind: str = "local"  # the sources are known to pipelines/sources/open.py, which refuses any other
    log: str = ""
    index: str = ""
    local: Local = Local()
    elasticsearch: Elasticsearch = Elasticsearch()


@dataclass(frozen=True, config=STRICT)
class Log:
    """Which events of the log become queries."""

    format: str = "auto"  # the formats are known to pipelines/sources/local/formats, which refuses any other
    window_days: Positive = 7
    fields: LogFields = LogFields()
    filter: dict[str, FilterValue] = dataclasses.field(default_factory=dict)
    click_actions: tuple[str, ...] = ("click", "click_through", "add_to_cart", "purchase", "watch")
    max_query_chars: Positive = 1000
    min_count: Positive = 1


@dataclass(frozen=True, config=STRICT)
class Privacy:
    """Masking of queries and thresholds on users; users are always hashed."""

    mask: bool = True
    mask_also: tuple[Literal["ip", "product"], ...] = ()
    min_users: Positive = 1
    max_events_per_user: Positive = 20


@dataclass(frozen=True, config=STRICT)
class Candidates:
    """How many candidates a query gets, from which searches, and in which units they are scored."""

    top_k: Positive = 100
    title_boost: Annotated[float, Field(gt=0)] = 1.5
    second_search: Literal["off", "parts", "names", "both"] = "off"
    score_parts: bool = False
    unit: Literal["passage", "sentence", "window"] = "passage"
    window_words: Positive = 150
    window_stride: Positive = 75

    def __post_init__(self) -> None:
        if self.window_stride > self.window_words:
            raise ValueError(
                f"window_stride {self.window_stride} is larger than window_words {self.window_words}: "
                "words between two windows would never be scored; lower window_stride"
            )
