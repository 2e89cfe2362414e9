"""Fusion: the final order is by a weighted sum of the cross-encoder's logit and of features that it cannot see.

The cross-encoder reads one pair at a time. It does not know how BM25 or a bi-encoder scored it, nor what the query's
other candidates say: that a good one mentions this one's title, or that entities lead here. Weights are fitted
on judged sets (`nightrank fuse`, fusion_fit.py) and stored beside the model as fusion.json. The sum is a
logit too: its sigmoid is the published score. Logits of the cross-encoder, and so reuse, do not depend on it.

How far a model's logits are from those of the text that it knows shows in the best of a list, so a share of that is
added to all of them: the order stays, and scores are probabilities on more kinds of text.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerank_core.errors import ConfigError, FusionError
from rerank_core.features.hop import MIN_IDF
from rerank_core.files import read_text
from rerank_core.ranking import links
from rerank_core.scoring.protocol import Scorer
from schemas.parsing import parse_json
from schemas.records import QueryGroup, ScoredCandidate

FILE = "fusion.json"

FEATURES = (
    "cross_encoder",  # the model's logit
    "bm25",  # the document's score, standardised over the query's candidates and bounded by OUTLIER
    "bi_encoder",  # the cosine
    "named_above",  # by how many logits a candidate whose text contains this title exceeds this one; see `_above`
    "shares_above",  # likewise, a candidate that shares a rare name with this one
    "apart",  # 1 if its title is in neither the query nor another candidate, and its text contains none of theirs
    "one_hop",  # 1 if the tag HOP is 1
)
"""What is summed. The last one reads tags, and is 0 for all candidates where nothing was tagged."""

OUTLIER = 2.0
"""Bound on a BM25 score in standard deviations: how far the best stands out depends on how people ask."""

OF_TAGS = frozenset({"one_hop"})
SINGLE = ("cross_encoder", "bm25", "bi_encoder")
"""Features that give an order alone."""


@dataclasses.dataclass(frozen=True)
class Fusion:
    """Weights of FEATURES, and what is added to their sum."""

    weights: tuple[float, ...]
    bias: float
    bi_encoder: str = ""  # fingerprint of the bi-encoder that the weights were fitted with; "": none
    top: float = dataclasses.field(default=0.0, repr=False)
    """Times the list's highest sum; at least -1, so that a better best candidate scores no less. It is not in the repr,
    which is hashed: weights that were fitted before have none."""

    def __post_init__(self) -> None:
        assert len(self.weights) == len(FEATURES), "one weight a feature"

    def logits(self, matrix: np.ndarray) -> np.ndarray:
        """The fused logits of one list, float64 [candidates], from its features, float64 [candidates, FEATURES]."""
        # Row by row: the last bits of a matrix product would depend on the other rows.
        sums: np.ndarray = (matrix * np.array(self.weights)).sum(axis=1)
        return sums + (self.bias + self.top * sums.max() if len(sums) else 0.0)

    def weight(self, feature: str) -> float:
        return self.weights[FEATURES.index(feature)]

    def by_feature(self) -> dict[str, float]:
        """The weights that are not 0."""
        return {name: weight for name, weight in zip(FEATURES, self.weights, strict=True) if weight}

    @property
    def reads_tags(self) -> bool:
        """Whether tags change the order."""
        return any(self.weight(feature) for feature in OF_TAGS)


def features(group: QueryGroup) -> np.ndarray:
    """The features of the candidates that have a logit: float64 [candidates, FEATURES], in the group's order.

    A missing cosine is replaced by the mean of the others.
    """
    scored = [c for c in group.candidates if c.logit is not None]
    titles, texts = [c.candidate.title for c in scored], [c.candidate.text for c in scored]
    named = links.named_by(titles, texts, min_idf=MIN_IDF)
    columns = (
        [c.logit for c in scored],
        _standardised_bm25(group.candidates),
        _mean_filled([c.first_stage for c in scored]),
        _above(scored, named),
        _above(scored, links.sharing_names(titles, texts, min_idf=MIN_IDF)),
        links.stand_apart(group.query.text, titles, named),
        [c.tags is not None and c.tags.hop == 1 for c in scored],
    )
    return np.array(columns, np.float64).reshape(len(FEATURES), len(scored)).T


def fuse(group: QueryGroup, fusion: Fusion) -> QueryGroup:
    """Give every candidate that has a logit its fused one."""
    logits = iter(fusion.logits(features(group)).tolist())
    fused = tuple(c if c.logit is None else c._replace(fused=next(logits)) for c in group.candidates)
    return group._replace(candidates=fused)


def read(path: Path) -> Fusion:
    """Weights that `write` stored.

    Raises:
        FusionError: the file is missing or damaged.
    """
    try:
        stored = parse_json(read_text(path))
        weights: dict[str, float] = {name: float(weight) for name, weight in stored["weights"].items()}
        if unknown := sorted(set(weights) - set(FEATURES)):
            raise ValueError(f"unknown feature {unknown[0]!r}")
        bias, top = float(stored["bias"]), float(stored.get("top", 0.0))
        if not all(map(math.isfinite, (*weights.values(), bias, top))) or not any(weights.values()):
            raise ValueError("weights are not finite, or all are 0")
        if top < -1:
            raise ValueError(f"top is {top}, less than -1")
        fitted_with = str(stored.get("bi_encoder") or "")
        return Fusion(tuple(weights.get(name, 0.0) for name in FEATURES), bias, fitted_with, top)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FusionError(
            f"{path} holds no weights ({error}); fit them again with nightrank fuse, or set "
            "fusion.use = 'off'"
        ) from None


def describe(path: Path) -> dict[str, Any]:
    """The whole file of weights, figures included, for the manifest."""
    stored: dict[str, Any] = parse_json(read_text(path))
    return stored


def write(path: Path, fusion: Fusion, *, figures: dict[str, Any]) -> Path:
    """Store weights, with the figures of their fit."""
    weights = {name: round(weight, 6) for name, weight in fusion.by_feature().items()}
    added = {"bias": round(fusion.bias, 6), "top": round(fusion.top, 6)}
    stored = {"weights": weights, **added, "bi_encoder": fusion.bi_encoder, **figures}
    path.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    return path


def _standardised_bm25(candidates: Sequence[ScoredCandidate]) -> list[float]:
    """BM25 scores, standardised over all candidates and bounded by OUTLIER, of the candidates that have a logit."""
    scores = [c.candidate.bm25_score for c in candidates]
    mean = math.fsum(scores) / max(1, len(scores))
    spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / max(1, len(scores)))
    return [
        OUTLIER * math.tanh((c.candidate.bm25_score - mean) / spread / OUTLIER) if spread > 0 else 0.0
        for c in candidates
        if c.logit is not None
    ]


def _mean_filled(cosines: Sequence[float | None]) -> list[float]:
    known = [cosine for cosine in cosines if cosine is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    return [mean if cosine is None else cosine for cosine in cosines]


def _above(scored: Sequence[ScoredCandidate], linked: Sequence[Sequence[int]]) -> list[float]:
    """By how many logits the best candidate linked to each one exceeds it; 0 if none does.

    As long as the weights of these features sum to no more than the logit's, they raise a candidate at most to the
    level of the better one that it is linked to.
    """
    logits = [c.logit or 0.0 for c in scored]
    return [max([0.0, *(logits[other] - logits[n] for other in others)]) for n, others in enumerate(linked)]


def check_bi_encoder(weights: Fusion, bi_encoder: Scorer | None, *, model: str) -> Scorer | None:
    """The bi-encoder that the weights need; None if they need none.

    Args:
        weights: any.
        bi_encoder: the one that was named, if one was.
        model: name of the model that the weights are of, for the message.

    Raises:
        ConfigError: it is missing, or not the one that the weights were fitted with.
    """
    if not weights.bi_encoder:
        return None
    if bi_encoder is None:
        raise ConfigError(
            f"the fusion weights of {model} were fitted with a bi-encoder: name it (--bi-encoder, or "
            "fusion.bi_encoder of a night), or use the model without fusion (alone:MODEL, or fusion.use = 'off')"
        )
    if bi_encoder.fingerprint != weights.bi_encoder:
        raise ConfigError(
            f"the fusion weights of {model} were fitted with another bi-encoder ({weights.bi_encoder}) than "
            f"the one given ({bi_encoder.fingerprint}); name that one, or fit the weights again with nightrank fuse"
        )
    return bi_encoder
