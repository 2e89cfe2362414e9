"""`nightrank fuse`: fits how a model's logits, BM25, links, tags and a bi-encoder make one order, on judged sets.

Figures are of questions that the fit did not see: each is ranked by weights that were fitted on the other folds. What
is stored is fitted on all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluate.judged_sets import JudgedSet
from pipelines.evaluate.scores import Scored, in_chunks, scored
from pipelines.evaluate.systems import Opened
from rerank_core.errors import ConfigError, ModelError
from rerank_core.evaluation.qrels import Qrels
from rerank_core.ranking import fusion, fusion_fit
from rerank_core.ranking.fusion import FEATURES, OF_TAGS
from rerank_core.ranking.fusion_fit import Example, FitSet, FusionFit
from rerank_core.scoring.load import DEFAULT_MODEL
from rerank_core.scoring.protocol import Scorer
from schemas.records import QueryGroup

MODES = ("true", "none", "shuffled")


def fit_set(
    judged: JudgedSet, opened: Opened, *, on_scored: Callable[[int], None] = lambda pairs: None
) -> FitSet:
    """A set's questions as the fit wants them.

    Raises:
        ConfigError: the system gives no logits.
        ScoringFailed: the model is broken.
    """
    if not opened.gives_logits:
        raise ConfigError(
            f"{opened.system.name} gives no logits, so nothing can be fused with them; name a model"
        )
    lowest, examples = judged.wanted.min_relevance, []
    for groups, _ in in_chunks(judged, tagged=True):
        by_mode = list(scored(groups, opened._replace(modes=MODES), on_scored=on_scored))
        examples += _examples(by_mode, judged.qrels, min_relevance=lowest)
    return FitSet(tuple(examples), judged.qrels, lowest)


def fit(sets: Mapping[str, FitSet], *, bi_encoder: Scorer | None, tags: bool) -> FusionFit:
    """Fit on all sets together.

    Raises:
        FusionError: there is nothing to learn from.
    """
    left_out = (set() if bi_encoder else {"bi_encoder"}) | (set() if tags else OF_TAGS)
    used = [name for name in FEATURES if name not in left_out]
    return fusion_fit.fit_fusion(sets, features=used, bi_encoder=bi_encoder.fingerprint if bi_encoder else "")


def keep(model: str, found: FusionFit) -> Path:
    """Store the weights in the model's folder.

    Raises:
        ModelError: there is no such folder, or it cannot be written to.
    """
    path = (Path(model) if model else DEFAULT_MODEL) / fusion.FILE
    try:
        return fusion.write(path, found.fusion, figures=told(found))
    except OSError as error:
        raise ModelError(
            f"cannot write {path} ({error.strerror}): copy the model to a folder of yours"
        ) from None


def told(found: FusionFit) -> dict[str, Any]:
    """What is stored beside the weights: what they are worth on questions that the fit did not see."""
    figures = {
        name: {score: {m: round(v, 4) for m, v in means.items()} for score, means in rows.items()}
        for name, rows in found.figures.items()
    }
    ridge = found.ridge if math.isfinite(found.ridge) else None
    error = {name: round(value, 4) for name, value in found.error.items()}
    return {
        "ridge": ridge, "tag_share": found.tag_share, "best_single": found.best_single, "questions": found.used,
        "ece": error, "figures": figures,
    }  # fmt: skip


def _examples(by_mode: list[Scored], qrels: Qrels, *, min_relevance: int) -> list[Example]:
    examples = []
    for variants in zip(*(one.groups for one in by_mode), strict=True):
        group: QueryGroup = variants[0]
        grades = qrels[group.query.query_id]
        items = tuple(one.candidate.passage_id for one in group.candidates)
        relevant = np.array([grades.get(item, 0) >= min_relevance for item in items])
        matrices = tuple(fusion.features(variant) for variant in variants)
        examples.append(Example(group.query.query_id, items, matrices, relevant))
    return examples
