"""How nights are operated: deadline, retention, drift, alerts, models. None of it changes the rows of a night."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from rerank_core.config.toml import STRICT, NonNegative, Positive, Share

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def _check_clock(value: str) -> str:
    if value and not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise ValueError(f"{value!r} is no time of day; write HH:MM, such as '06:00', or '' for no deadline")
    return value


Clock = Annotated[str, AfterValidator(_check_clock)]


@dataclass(frozen=True, config=STRICT)
class Plan:
    """Which steps a night has beside reranking, and when it must be finished."""

    finish_by: Clock = ""  # "" is no deadline
    time_zone: str = "UTC"  # of finish_by and train_days, an IANA name
    train: str = ""  # a training's TOML; "" never trains
    train_days: tuple[Weekday, ...] = ("sunday",)


@dataclass(frozen=True, config=STRICT)
class PublishBack:
    """The Elasticsearch cluster that gets the reranked lists; url = "": none."""

    url: str = ""
    alias: str = "nightrank"
    keep: NonNegative = 2
    ca_file: str = ""


@dataclass(frozen=True, config=STRICT)
class Retention:
    """Which published runs are kept; 0 is no limit."""

    keep_runs: NonNegative = 0
    keep_days: NonNegative = 0
    grace_hours: Annotated[float, Field(ge=0)] = 24.0


@dataclass(frozen=True, config=STRICT)
class RegistryOptions:
    """Where models and their lineage are kept; "" is no registry."""

    path: str = ""


@dataclass(frozen=True, config=STRICT)
class Promotion:
    """What a candidate model must show before it serves."""

    judged_sets: tuple[str, ...] = ()
    max_queries: NonNegative = 300
    margin: Annotated[float, Field(ge=0)] = 0.005
    max_shortcut_gap: Share = 0.01
    max_calibration_error: Share = 0.1
    min_overlap_at_10: Share = 0.5


@dataclass(frozen=True, config=STRICT)
class DriftOptions:
    """Whether a night is compared with earlier ones before it is published."""

    enabled: bool = True


@dataclass(frozen=True, config=STRICT)
class Alerts:
    """Where the outcome of a night is reported; the webhook's URL is read from NIGHTRANK_WEBHOOK_URL."""

    prometheus: str = ""
    summary: str = ""
    webhook_on: tuple[Literal["published", "warn", "held", "failed"], ...] = ("warn", "held", "failed")
    webhook_timeout_seconds: Positive = 10


OPERATION = ("plan", "publish_back", "retention", "registry", "promotion", "drift", "alerts")
"""Sections of a night's configuration that do not change its rows, and so not its run id."""
