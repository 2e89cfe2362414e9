"""How nights are operated: deadline, retention, drift, alerts, models. None of it changes the rows of a night."""

from __future__ import annotations

import re
import zoneinfo
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from rerank_core.config.toml import STRICT, NonNegative, Positive, Share

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def check_clock(value: str) -> str:
    """A time of day HH:MM, or "".

    Raises:
        ValueError: it is none.
    """
    if value and not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise ValueError(f"{value!r} is no time of day; write HH:MM, such as '06:00', or '' for no deadline")
    return value


Clock = Annotated[str, AfterValidator(check_clock)]


def _check_zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"{value!r} is no time zone of this machine; write an IANA name, such as 'Europe/Berlin', or 'UTC'"
        ) from None
    return value


@dataclass(frozen=True, config=STRICT)
class Plan:
    """Which steps a night has beside reranking, and when it must be finished."""

    finish_by: Clock = ""  # "" is no deadline
    time_zone: Annotated[str, AfterValidator(_check_zone)] = "UTC"  # of finish_by, an IANA name
    cost_per_hour: Annotated[float, Field(ge=0)] = (
        0.0  # of the machines, for --dry-run and the report; 0: no cost is shown
    )
    train: str = ""  # a training's TOML; "" never trains
    train_days: tuple[Weekday, ...] = ("sunday",)  # of the run date


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
    split: str = "dev"
    max_queries: NonNegative = 600
    margin: Annotated[float, Field(ge=0)] = 0.01
    max_shortcut_gap: Share = 0.01
    max_calibration_error: Share = 0.1
    max_slowdown: Annotated[float, Field(ge=1)] = 1.5
    min_overlap_at_10: Share = 0.5


AtLeast = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class DriftWarn:
    """From where on a difference to earlier nights is reported; rerank_core/drift/rules.py says of what."""

    queries: Share = 0.5
    events: Share = 0.5
    candidates: Share = 0.7
    candidate_overlap: Share = 0.8
    overlap_at_10: Share = 0.7
    rank_correlation: Annotated[float, Field(ge=-1, le=1)] = 0.8
    score_psi: AtLeast = 0.25
    score_ks: Share = 0.2
    constant_scores: Share = 0.1
    reused_share: Share = 0.3
    dead_letters: Share = 0.05
    tags: AtLeast = 0.25
    tag_share: Share = 0.1
    entities: Share = 0.7
    ndcg_gain: AtLeast = 0.03


@dataclass(frozen=True, config=STRICT)
class DriftHold(DriftWarn):
    """From where on a night is not published."""

    queries: Share = 0.1
    events: Share = 0.1
    candidates: Share = 0.3
    candidate_overlap: Share = 0.6
    overlap_at_10: Share = 0.2
    rank_correlation: Annotated[float, Field(ge=-1, le=1)] = 0.2
    score_psi: AtLeast = 2.0
    score_ks: Share = 0.7
    constant_scores: Share = 0.5
    reused_share: Share = 1.0
    dead_letters: Share = 0.3
    tags: AtLeast = 2.0
    tag_share: Share = 0.5
    entities: Share = 0.1
    ndcg_gain: AtLeast = 0.15


@dataclass(frozen=True, config=STRICT)
class DriftOptions:
    """Whether a night is compared with earlier ones before it is published, and from where on that matters."""

    enabled: bool = True
    min_queries: Positive = 10
    warn: DriftWarn = DriftWarn()
    hold: DriftHold = DriftHold()


@dataclass(frozen=True, config=STRICT)
class Alerts:
    """Where the outcome of a night is reported; the webhook's URL is read from NIGHTRANK_WEBHOOK_URL."""

    prometheus: str = ""
    summary: str = ""
    webhook_on: tuple[Literal["published", "warn", "held", "failed"], ...] = ("warn", "held", "failed")
    webhook_timeout_seconds: Positive = 30


@dataclass(frozen=True, config=STRICT)
class Workers:
    """Workers on other machines: which local paths they have, and what those that score need."""

    shared_paths: tuple[str, ...] = ()
    scoring_min_ram: Annotated[str, Field(pattern=r"^(|\d+(\.\d+)? ?[KMGT]i?B)$")] = ""
    scoring_accelerator: Annotated[str, Field(pattern=r"^(|type:[a-z0-9-]+;count:\d+(;[a-z0-9:;-]+)?)$")] = ""


OPERATION = ("plan", "publish_back", "retention", "registry", "promotion", "drift", "alerts", "workers")
"""Sections of a night's configuration that do not change its rows, and so not its run id."""
