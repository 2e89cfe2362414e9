"""Ranking quality of a model on a dev set."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rerank_core.evaluation.measures import measure
from rerank_core.features.render import with_tags
from rerank_core.training.dev_set import DevSet


def measure_model(model: Any, dev: DevSet, *, tagged: bool, batch: int = 32) -> dict[str, float]:
    """Measures of rerank_core.evaluation, with the candidates ordered by logit; equal ones keep their order.

    A document of several units counts by its best unit.

    Args:
        model: a CrossEncoder; its mode (training or not) is restored.
        dev: the judged queries with their candidates.
        tagged: show the model the tags.
        batch: pairs per forward pass.
    """
    pairs = [
        with_tags(tags if tagged else "", query.query, passage)
        for query in dev.queries
        for passage, tags in zip(query.passages, query.tags, strict=True)
    ]
    training = model.training
    logits = model.predict(
        [tuple(pair) for pair in pairs],
        batch_size=batch,
        activation_fn=torch.nn.Identity(),
        show_progress_bar=False,
    )
    model.train(training)
    rankings, start = {}, 0
    for query in dev.queries:
        own = np.asarray(logits[start : start + len(query.doc_ids)])
        start += len(query.doc_ids)
        rankings[query.query_id] = [query.doc_ids[n] for n in np.argsort(-own, kind="stable")]
    return measure(rankings, {query.query_id: dev.qrels[query.query_id] for query in dev.queries})
