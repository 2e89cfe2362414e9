"""ReadQueryLog: the log of a source -> the distinct queries of a window, with every event accounted for."""

from __future__ import annotations

from typing import NamedTuple

import apache_beam as beam

from pipelines.querylog.aggregate import AggregateQueries
from pipelines.querylog.debias import DebiasClicks
from pipelines.sources import Source
from rerank_core.config.night import Config
from rerank_core.querylog.events import Window
from schemas.records import Rejected


class LogOutputs(NamedTuple):
    """The three outputs of the stage."""

    queries: beam.PCollection
    rejected: beam.PCollection
    tallies: beam.PCollection


class ReadQueryLog(beam.PTransform):
    """PBegin -> queries, rejected events and tallies."""

    def __init__(self, source: Source, window: Window | None, config: Config):
        self._source, self._window, self._config = source, window, config

    def expand(self, begin: beam.Pipeline) -> LogOutputs:
        read = begin | "ReadEvents" >> self._source.events()
        unreadable, events = read | "Readable" >> beam.Partition(
            lambda record, _: int(not isinstance(record, Rejected)), 2
        )
        config, labels = self._config, self._config.labels
        debias = labels.debias and labels.source == "clicks"
        log = events | AggregateQueries(
            config.log, window=self._window, privacy=config.privacy, keep_shown=debias
        )
        debiased = log.queries | DebiasClicks(labels) if debias else None
        queries = debiased.queries if debiased else log.queries
        rejected = (unreadable, log.rejected) | "RejectedEvents" >> beam.Flatten()
        tallies = (
            (
                log.tallies,
                *([debiased.tallies] if debiased else []),
                unreadable
                | "CountUnreadable" >> beam.FlatMap(lambda _: [("events_read", 1), ("events_rejected", 1)]),
                rejected | "CountRejected" >> beam.Map(lambda _: ("rejected", 1)),
                read | "CountIn" >> beam.Map(lambda _: ("in", 1)),
                queries | "CountOut" >> beam.Map(lambda _: ("out", 1)),
            )
            | beam.Flatten()
            | "OfThisStage" >> beam.MapTuple(lambda what, amount: (("ReadQueryLog", what), amount))
        )
        return LogOutputs(queries, rejected, tallies)
