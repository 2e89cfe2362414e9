"""The sections [labels] and [mining] of a night: which candidates it publishes as positives and as hard negatives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rerank_core.config.toml import STRICT, NonNegative, Positive, Share


@dataclass(frozen=True, config=STRICT)
class Labels:
    """What counts as a positive for mining, and what counts as neither positive nor negative."""

    source: Literal["clicks", "qrels", "answers"] = "clicks"
    min_clicks: Positive = 1
    debias: bool = False
    min_impressions: Positive = 5
    min_attraction: Annotated[float, Field(gt=0)] = 0.4
    max_negative_attraction: Annotated[float, Field(gt=0)] = 0.2
    shown_negatives_only: bool = False
    max_weight: Annotated[float, Field(ge=1)] = 5.0
    queries: str = ""
    qrels: str = ""

    def __post_init__(self) -> None:
        if self.shown_negatives_only and not (self.debias and self.source == "clicks"):
            raise ValueError(
                "shown_negatives_only needs source = 'clicks' and debias = true, which count impressions; set them, or "
                "remove shown_negatives_only"
            )


@dataclass(frozen=True, config=STRICT)
class Mining:
    """Which candidates become hard negatives; names as in sentence-transformers' mine_hard_negatives."""

    enabled: bool = True
    num_negatives: Positive = 5
    easy_negatives: NonNegative = 1
    rank_min: Positive = 1
    rank_max: NonNegative = 0
    max_score: Share = 1.0
    min_score: Share = 0.0
    absolute_margin: Annotated[float, Field(ge=-1, le=1)] = -1.0
    relative_margin: Annotated[float, Field(ge=-1, le=1)] = -1.0
    near_copies: Share = 0.95
    sampling: Literal["top", "random"] = "top"
    seed: int = 7
