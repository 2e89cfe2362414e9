"""Fits the weights of the fused order on judged sets: `nightrank fuse`.

Figures are cross-validated: each question is ranked by weights that were fitted on the other folds. The weights that
are stored are fitted on all questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.evaluate.judged_sets import JudgedSet, MinRelevance, Selection, read_sets, set_names
from pipelines.evaluate.scores import Count, Scored, candidate_groups, score_by_mode
from pipelines.evaluate.systems import LoadedSystem, load_bi_encoder, load_cross_encoder
from rerank_core.errors import ModelError
from rerank_core.evaluation.qrels import Qrels
from rerank_core.ranking import fusion, fusion_fit
from rerank_core.ranking.fusion import FEATURES, OF_TAGS
from rerank_core.ranking.fusion_fit import Example, FitSet, FusionFit
from rerank_core.scoring.load import DEFAULT_MODEL

MODES = ("true", "none", "shuffled")


class Fused(NamedTuple):
    """A fit, and where its weights are stored."""

    fit: FusionFit
    path: Path | None  # None: not stored


def fuse(
    model: str,
    sets: Sequence[Path],
    *,
    backend: str = "",
    bi_encoder: str = "",
    no_tags: bool = False,
    split: str = "dev",
    top_k: int = 50,
    own: bool = False,
    min_relevance: MinRelevance = 1,
    max_length: int = 256,
    max_queries: int = 0,
    work: Path | None = None,
    dry_run: bool = False,
    on_indexed: Callable[[int], None] | None = None,
    on_scored: Count = lambda pairs: None,
) -> Fused:
    """Fit how a model's logits, BM25, links, tags and a bi-encoder make one order, and store it beside the model.

    Args:
        model: a cross-encoder's folder, or "default".
        sets: folders in BEIR's layout, with qrels/SPLIT.tsv.
        backend: of the model; "" is the one for its folder.
        bi_encoder: a bi-encoder's folder, to use its cosine as a feature.
        no_tags: do not use the features that read tags.
        split: of the queries and judgements.
        top_k: candidates of a question, BM25's best.
        own: rank a question's own candidates instead, if it has some.
        min_relevance: lowest relevant grade.
        max_length: tokens that a model reads.
        max_queries: questions of a set, drawn by hash; 0 is all.
        work: folder that caches the sets' indices, and scores, for the next call.
        dry_run: store nothing.
        on_indexed: called with the number of passages indexed since the last call.
        on_scored: called with the number of inputs scored since the last call.

    Raises:
        ConfigError: the model gives no logits, two sets have one name, or a wrong value.
        JudgementError, SourceError: a set cannot be used.
        ModelError, MissingEngine: a model cannot be loaded, or its folder cannot be written to.
        FusionError: there is nothing to learn from.
        ScoringFailed: a model is broken.
    """
    set_names(sets)
    system = load_cross_encoder(model, backend=backend, max_length=max_length, work=work)
    encoder = load_bi_encoder(bi_encoder, max_length=max_length, work=work)
    selection = Selection(split, own=own, top_k=top_k, max_queries=max_queries)
    with read_sets(
        sets, selection=selection, min_relevance=min_relevance, work=work, on_progress=on_indexed
    ) as judged:
        fit_sets = {
            one_set.name: fit_set(one_set, system._replace(bi_encoder=encoder), on_scored=on_scored)
            for one_set in judged
        }
    left_out = (set() if encoder else {"bi_encoder"}) | (OF_TAGS if no_tags else set())
    fit = fusion_fit.fit_fusion(
        fit_sets,
        features=[name for name in FEATURES if name not in left_out],
        bi_encoder=encoder.fingerprint if encoder else "",
    )
    return Fused(fit, None if dry_run else store(system.system.path, fit))


def fit_set(judged: JudgedSet, system: LoadedSystem, *, on_scored: Count = lambda pairs: None) -> FitSet:
    """A set's questions with their features.

    Raises:
        ScoringFailed: the model is broken.
    """
    lowest, examples = judged.selection.min_relevance, []
    for groups, _ in candidate_groups(judged, tagged=True):
        by_mode = list(score_by_mode(groups, system._replace(tag_modes=MODES), on_scored=on_scored))
        examples += _examples(by_mode, judged.qrels, min_relevance=lowest)
    return FitSet(tuple(examples), judged.qrels, lowest)


def store(model: str, fit: FusionFit) -> Path:
    """Write the weights to the model's folder ("" is the default model).

    Raises:
        ModelError: there is no such folder, or it cannot be written to.
    """
    path = (Path(model) if model else DEFAULT_MODEL) / fusion.FILE
    try:
        return fusion.write(path, fit.fusion, figures=figures_of(fit))
    except OSError as error:
        raise ModelError(
            f"cannot write {path} ({error.strerror}): copy the model to a folder that you can write to"
        ) from None


def figures_of(fit: FusionFit) -> dict[str, Any]:
    """What is stored beside the weights: the figures of the fit, rounded, with None for an infinite ridge."""
    return {
        "ridge": fit.ridge if math.isfinite(fit.ridge) else None,
        "tag_share": fit.tag_share,
        "best_single": fit.best_single,
        "questions": fit.used,
        "ece": _rounded(fit.error),
        "left_out": {name: _rounded(means) for name, means in fit.left_out.items()},
        "figures": {
            name: {score: _rounded(means) for score, means in by_score.items()}
            for name, by_score in fit.figures.items()
        },
    }


def as_json(fused: Fused) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        "weights": fused.fit.fusion.by_feature(),
        "bias": fused.fit.fusion.bias,
        "top": fused.fit.fusion.top,
        **figures_of(fused.fit),
        "path": str(fused.path) if fused.path else None,
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _examples(by_mode: list[Scored], qrels: Qrels, *, min_relevance: int) -> list[Example]:
    examples = []
    for variants in zip(*(scored.groups for scored in by_mode), strict=True):
        group = variants[0]
        grades = qrels[group.query.query_id]
        items = tuple(c.candidate.passage_id for c in group.candidates)
        relevant = np.array([grades.get(item, 0) >= min_relevance for item in items])
        matrices = tuple(fusion.features(variant) for variant in variants)
        examples.append(Example(group.query.query_id, items, matrices, relevant))
    return examples
