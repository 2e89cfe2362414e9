"""Fusion: the final order goes by a weighted sum of the cross-encoder's logit and of what it cannot see.

The cross-encoder reads one pair at a time. It does not know how BM25 or a bi-encoder judged it, nor what the query's
other candidates say: that a good one names this one by its title, or that entities lead here. Weights are fitted
on judged sets (`nightrank fuse`, fusion_fit.py) and stored beside the model as fusion.json. The sum is a
logit too: its sigmoid is the published score. Logits of the cross-encoder, and so reuse, do not depend on it.
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
from rerank_core.ranking import links
from rerank_core.scoring.protocol import Scorer
from schemas.records import QueryGroup, ScoredCandidate
from schemas.tags import HOP_UNREACHABLE

FILE = "fusion.json"

FEATURES = (
    "cross_encoder",  # the model's logit
    "bm25",  # the document's score, standardised among the query's candidates and bent to stay within OUTLIER
    "bi_encoder",  # the cosine, as it is
    "named_above",  # by how many logits a candidate whose text holds this title stands above it; see `_above`
    "shares_above",  # likewise a candidate with which it shares a rare name
    "apart",  # 1 where its title is in neither the query nor another candidate, and it holds none of their titles
    "one_hop",  # 1 where the tag HOP is 1
    "unreachable",  # 1 where no chain of entities leads from the query to it
)
"""What is summed. The tags' two, the last, are 0 for all where nothing was tagged; the others read no tags."""

OUTLIER = 2.0
"""Deviations that no score of BM25's exceeds, however far it stands out, which is a matter of how people ask."""

OF_TAGS = frozenset({"one_hop", "unreachable"})
SINGLE = ("cross_encoder", "bm25", "bi_encoder")
"""Those that make an order by themselves."""


@dataclasses.dataclass(frozen=True)
class Fusion:
    """Weights of FEATURES, and what is added to their sum."""

    weights: tuple[float, ...]
    bias: float
    bi_encoder: str = ""  # fingerprint of the bi-encoder that the weights were fitted with; "" without one

    def __post_init__(self) -> None:
        assert len(self.weights) == len(FEATURES), "one weight a feature"

    def weight(self, feature: str) -> float:
        return self.weights[FEATURES.index(feature)]

    @property
    def reads_tags(self) -> bool:
        """Whether tags change the order."""
        return any(self.weight(feature) for feature in OF_TAGS)


def features(group: QueryGroup) -> np.ndarray:
    """What the group's scored candidates are summed from: float64 [candidates with a logit, FEATURES], in their order.

    A candidate whose cosine is not known has the mean of the others'.
    """
    known = [one for one in group.candidates if one.logit is not None]
    titles, texts = [one.candidate.title for one in known], [one.candidate.text for one in known]
    named = links.named_by(titles, texts, min_idf=MIN_IDF)
    columns = (
        [one.logit for one in known],
        _standard(group.candidates),
        _filled([one.first_stage for one in known]),
        _above(known, named),
        _above(known, links.sharing_names(titles, texts, min_idf=MIN_IDF)),
        links.stand_apart(group.query.text, titles, named),
        [one.tags is not None and one.tags.hop == 1 for one in known],
        [one.tags is not None and one.tags.hop == HOP_UNREACHABLE for one in known],
    )
    return np.array(columns, np.float64).reshape(len(FEATURES), len(known)).T


def fuse(group: QueryGroup, fusion: Fusion) -> QueryGroup:
    """Give every candidate that has a logit its fused one."""
    # Row by row, not as a product of matrices, whose last bits would depend on the other rows.
    sums = iter(((features(group) * np.array(fusion.weights)).sum(axis=1) + fusion.bias).tolist())
    fused = tuple(one if one.logit is None else one._replace(fused=next(sums)) for one in group.candidates)
    return group._replace(candidates=fused)


def read(path: Path) -> Fusion:
    """Weights that `write` stored.

    Raises:
        FusionError: there is no such file, or it is not one.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        weights: dict[str, float] = {name: float(weight) for name, weight in told["weights"].items()}
        if unknown := sorted(set(weights) - set(FEATURES)):
            raise ValueError(f"unknown feature {unknown[0]!r}")
        numbers = (*weights.values(), float(told["bias"]))
        if not all(map(math.isfinite, numbers)) or not any(weights.values()):
            raise ValueError("weights are not finite, or all are 0")
        fitted_with = str(told.get("bi_encoder") or "")
        return Fusion(tuple(weights.get(name, 0.0) for name in FEATURES), numbers[-1], fitted_with)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FusionError(
            f"{path} holds no weights ({error}); run nightrank fuse, or set fusion.use = 'off'"
        ) from None


def told(path: Path) -> dict[str, Any]:
    """All that a file of weights says."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(path: Path, fusion: Fusion, *, told: dict[str, Any]) -> Path:
    """Store weights, with what is to be told of them."""
    weights = {name: round(w, 6) for name, w in zip(FEATURES, fusion.weights, strict=True) if w}
    plain = {"weights": weights, "bias": round(fusion.bias, 6), "bi_encoder": fusion.bi_encoder, **told}
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    return path


def _standard(candidates: Sequence[ScoredCandidate]) -> list[float]:
    """BM25's scores with mean 0 and deviation 1 among all candidates, then bent; of those that have a logit."""
    scores = [one.candidate.bm25_score for one in candidates]
    mean = math.fsum(scores) / max(1, len(scores))
    spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / max(1, len(scores)))
    return [
        OUTLIER * math.tanh((one.candidate.bm25_score - mean) / spread / OUTLIER) if spread > 0 else 0.0
        for one in candidates
        if one.logit is not None
    ]


def _filled(cosines: Sequence[float | None]) -> list[float]:
    known = [cosine for cosine in cosines if cosine is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    return [mean if cosine is None else cosine for cosine in cosines]


def _above(known: Sequence[ScoredCandidate], linked: Sequence[Sequence[int]]) -> list[float]:
    """By how many logits the best candidate that is linked to this one stands above it; 0 where none does.

    So weights that together are not above the logit's draw what is linked to a better candidate up towards it, and by
    themselves never beyond it.
    """
    logits = [one.logit or 0.0 for one in known]
    return [max([0.0, *(logits[other] - logits[n] for other in others)]) for n, others in enumerate(linked)]


def check_bi_encoder(weights: Fusion, bi_encoder: Scorer | None, *, told: str) -> Scorer | None:
    """The bi-encoder that weights need; None where they need none.

    Raises:
        ConfigError: it is missing, or another one than they were fitted with.
    """
    if not weights.bi_encoder:
        return None
    if bi_encoder is None:
        raise ConfigError(
            f"the fusion weights of {told} were fitted with a bi-encoder: name it (--bi-encoder, or "
            "fusion.bi_encoder of a night), or take the model without them (alone:, or fusion.use = 'off')"
        )
    if bi_encoder.fingerprint != weights.bi_encoder:
        raise ConfigError(
            f"the fusion weights of {told} were fitted with another bi-encoder ({weights.bi_encoder}) than the one "
            f"named ({bi_encoder.fingerprint}); name that one, or fit them again with nightrank fuse"
        )
    return bi_encoder
