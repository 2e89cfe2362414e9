"""What a model's order of a judged set's candidates is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rerank_core.evaluation.measures import measure
from rerank_core.features.render import with_tags
from rerank_core.training.dev_set import DevSet


def measure_model(model: Any, dev: DevSet, *, tagged: bool, batch: int = 32) -> dict[str, float]:
    """Measures of rerank_core.evaluation, the candidates ordered by logit and equal ones as they came.

    A document of several units counts by its best.

    Args:
        model: a CrossEncoder; it is left in the mode that it was in.
        dev: the set.
        tagged: show the model the tags.
        batch: pairs that are scored together.
    """
    sides = [
        with_tags(tags if tagged else "", one.query, passage)
        for one in dev.queries
        for passage, tags in zip(one.passages, one.tags, strict=True)
    ]
    training = model.training
    logits = model.predict(
        [tuple(side) for side in sides],
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
