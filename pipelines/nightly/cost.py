"""What a night would take with many more pairs: workers, hours, shuffle, store and money, by a model of its costs.

The seconds of the stages are those of the estimate, from this machine and this model. What is beside them, and all
bytes and requests, grow with pairs and shards as `python -m benchmarks.scale` measures; its figure `model_error` says
how far the model is from a night that it was not fitted on.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from pipelines.nightly.estimate import Estimate
from pipelines.nightly.write_facts import FACTS_PER_FILE
from rerank_core.config.night import Config

SIZES = (10**8, 10**10)
"""Pairs of the nights that are planned beside tonight's."""

HOURS = 6.0
"""By when a planned night is over: as many workers are taken as it needs for that."""

START_SECONDS = 60.0
"""Before a worker does anything: its machine starts, and the model and the recogniser are opened."""

DOLLARS_PER_WRITE, DOLLARS_PER_READ = 5e-6, 4e-7
"""The list prices of the large object stores, for a request of each kind."""


class Line(NamedTuple):
    """An amount that grows with something: `fixed` + `each` x how much there is of it."""

    fixed: float
    each: float

    def __call__(self, amount: float) -> float:
        return self.fixed + self.each * amount


class Costs(NamedTuple):
    """What a night takes beside its stages."""

    seconds: Line  # of a processor, by pairs: the log, Beam, the checks
    shuffled: Line  # bytes, by pairs: packed scores and facts of passages
    written: Line  # bytes, by pairs
    read: Line  # bytes, by pairs
    writes: Line  # requests to the store that change something, by shards
    reads: Line  # the other requests, by shards


MEASURED = Costs(
    seconds=Line(2.0, 1.4e-4),
    shuffled=Line(0.0, 120.0),
    written=Line(0.0, 150.0),
    read=Line(1e6, 500.0),
    writes=Line(75.0, 4.0),
    reads=Line(35.0, 17.0),
)
"""By benchmarks.scale, a second night with 50 pairs a query; `shuffled` by the sizes of what is packed."""

BYTES_PER_FACT, BYTES_PER_LOOK_UP, REQUESTS_PER_FILE = 64.0, 57_000.0, 3.0
"""Of `passage_tags`: a row; at most a row group and a footer; size, footer and columns of a file."""


class Plan(NamedTuple):
    """A night of so many pairs."""

    pairs: int
    workers: int  # each as the one whose seconds were measured
    hours: float
    shuffled: float  # bytes
    written: float  # bytes
    read: float  # bytes
    requests: float
    machines: float | None  # cost of the workers by plan.cost_per_hour; None without it
    store: float  # dollars, for the requests


def plans(estimate: Estimate, config: Config, *, costs: Costs = MEASURED) -> list[Plan]:
    """Tonight's night and larger ones, as far as the estimate has pairs to go by."""
    if not estimate.pairs:
        return []
    return [plan(pairs, estimate, config, costs=costs) for pairs in (estimate.pairs, *SIZES)]


def plan(pairs: int, estimate: Estimate, config: Config, *, costs: Costs = MEASURED) -> Plan:
    """A night with tonight's share of reused pairs, and as many pairs for each query.

    Args:
        pairs: of the night.
        estimate: of tonight, with at least one pair.
        config: the night's; its shards hold as many queries.
    """
    by_stage = sum(estimate.stages.values()) / estimate.pairs
    seconds = by_stage * pairs + costs.seconds(pairs)
    workers = max(1, math.ceil(seconds / (HOURS * 3600 - START_SECONDS)))
    queries = pairs * max(1, estimate.queries - estimate.without_candidates) / estimate.pairs
    shards = math.ceil(queries / config.output.queries_per_shard)
    hours = (seconds / workers + START_SECONDS) / 3600
    # At most: each pair has a passage of its own.
    read, opened = look_ups(pairs, pairs, shards) if config.tags.enabled else (0.0, 0.0)
    writes, reads = costs.writes(shards), costs.reads(shards) + opened
    hourly = config.plan.cost_per_hour
    return Plan(
        pairs=pairs,
        workers=workers,
        hours=hours,
        shuffled=costs.shuffled(pairs),
        written=costs.written(pairs),
        read=costs.read(pairs) + read,
        requests=writes + reads,
        machines=hourly * workers * hours if hourly else None,
        store=DOLLARS_PER_WRITE * writes + DOLLARS_PER_READ * reads,
    )


def look_ups(passages: float, facts: float, shards: int) -> tuple[float, float]:
    """Bytes and requests at most to look up the facts of passages in last night's table.

    Args:
        passages: of all shards; one of several shards counts in each.
        facts: in the table.
        shards: each reads row groups of its facts, or the whole table where that is less.
    """
    each = passages / shards
    read = min(facts * BYTES_PER_FACT, each * BYTES_PER_LOOK_UP)
    return shards * read, shards * REQUESTS_PER_FILE * min(each, math.ceil(facts / FACTS_PER_FILE))
