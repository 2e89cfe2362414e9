"""DebiasClicks: the propensities of the ranks, estimated from the night's log, and clicks corrected by them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from rerank_core.config.labels import Labels
from rerank_core.querylog import click_model
from schemas.records import Query, ShownAtRank

MOST_QUERIES = 20_000
"""Queries that propensities are estimated from, those with the lowest ids: all are in the memory of one worker."""

Shown = tuple[tuple[ShownAtRank, ...], ...]


class Debiased(NamedTuple):
    """The two outputs of DebiasClicks."""

    queries: beam.PCollection
    tallies: beam.PCollection


class Estimate(NamedTuple):
    """What clicks are corrected with."""

    propensities: click_model.Propensities
    mean: float  # mean attraction of all documents, the prior of each


class DebiasClicks(beam.PTransform):
    """PCollection[Query] with `shown` -> the same queries with `attraction` instead.

    Tallies are (key, amount): "examined:RANK" (the propensity), "impressions:RANK", and "shown_at_several_places".
    """

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self._labels = labels

    def expand(self, queries: beam.PCollection) -> Debiased:
        estimate = (
            queries
            | "Shown" >> beam.Map(_shown)
            | "Lowest" >> beam.combiners.Top.Smallest(MOST_QUERIES)
            | "Estimate" >> beam.Map(_estimate, self._labels.max_weight)
        )
        corrected = queries | "Correct" >> beam.Map(_correct, pvalue.AsSingleton(estimate), self._labels)
        return Debiased(corrected, estimate | "Tell" >> beam.FlatMap(_tallies))


def _shown(query: Query) -> tuple[str, Shown]:
    return query.query_id, tuple(ranks for _, ranks in query.shown)


def _estimate(queries: Sequence[tuple[str, Shown]], max_weight: float) -> Estimate:
    shown = [ranks for _, documents in sorted(queries) for ranks in documents]
    propensities = click_model.estimate(shown)
    mean = click_model.mean_attraction(shown, propensities, max_weight=max_weight) if shown else 0.0
    return Estimate(propensities, mean)


def _correct(query: Query, estimate: Estimate, labels: Labels) -> Query:
    attraction = functools.partial(
        click_model.attraction,
        propensities=estimate.propensities,
        max_weight=labels.max_weight,
        mean=estimate.mean,
    )
    enough = [
        (doc_id, ranks)
        for doc_id, ranks in query.shown
        if sum(at.impressions for at in ranks) >= labels.min_impressions
    ]
    corrected = tuple((doc_id, attraction(ranks)) for doc_id, ranks in enough)
    return query._replace(shown=(), attraction=corrected)


def _tallies(estimate: Estimate) -> Iterator[tuple[str, Any]]:
    propensities, impressions, several = estimate.propensities
    yield "shown_at_several_places", several
    for rank, (propensity, count) in enumerate(zip(propensities, impressions, strict=True), start=1):
        yield f"examined:{rank}", propensity
        yield f"impressions:{rank}", count
