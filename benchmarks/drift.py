"""Drift: how often a stable night raises a false alarm, and how often a broken one is held back, by the log's size.

    python -m benchmarks.drift [--quick] [--json FILE]

Simulated nights, compared by the code that a night uses. A stable night draws its queries anew, popular ones often;
their number swings by 30 % within a week, and by chance. A query has one to twenty candidates, scores differ more
between queries than within one, one document in fifty is another one each night, and some records become dead letters.

- warned_N, held_N: share of the stable nights of about N queries that warn, or are held back.
- caught_FAULT_N: share of the nights broken in that way that are held back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.common import parser, report
from pipelines.drift.compare import Night, compare_nights
from pipelines.drift.earlier import NIGHTS
from pipelines.drift.sample import COLUMNS, Sample
from rerank_core.config.operation import DriftOptions
from schemas.manifest import Balance, Manifest, TableInfo
from schemas.tables import TABLES

SIZES = (5, 20, 100, 1000)
POPULATION = 20_000  # queries that users have, as multiples of a night's
ROLES = ("definition", "example", "procedure", "background")
Rows = dict[str, list[Any]]


def main() -> None:
    flags = parser(__doc__ or "")
    options = flags.parse_args()
    figures: dict[str, float] = {}
    for size in SIZES[:3] if options.quick else SIZES:
        figures |= stable_nights(size, nights=60 if options.quick else min(400, 100_000 // size))
        figures |= broken_nights(size, trials=5 if options.quick else 20)
    report(figures, options.json)


def stable_nights(size: int, *, nights: int) -> dict[str, float]:
    """Shares of false alarms in one long series of stable nights."""
    verdicts, by_measure, series = {"ok": 0, "warn": 0, "hold": 0}, dict[str, int](), Series(size, seed=size)
    for _ in range(nights):
        drift = series.next()
        verdicts[drift["verdict"]] += 1
        for name, measure in drift["measures"].items():
            if measure["verdict"] != "ok":
                by_measure[name] = by_measure.get(name, 0) + 1
    print(f"{size} queries: {verdicts}, by measure {by_measure or 'none'}")
    return {f"warned_{size}": verdicts["warn"] / nights, f"held_{size}": verdicts["hold"] / nights}


def broken_nights(size: int, *, trials: int) -> dict[str, float]:
    """Shares of broken nights that are held back, each after a stable week."""
    caught = dict.fromkeys(FAULTS, 0)
    for trial in range(trials):
        series = Series(size, seed=10_000 + trial)
        for _ in range(NIGHTS):
            series.next()
        for name in FAULTS:
            caught[name] += series.next(fault=name)["verdict"] == "hold"
    return {f"caught_{name}_{size}": count / trials for name, count in caught.items()}


class Series:
    """Nights of one log and one index, one after another; a broken one is not kept."""

    def __init__(self, size: int, *, seed: int) -> None:
        self._size, self._random, self._number = size, np.random.default_rng(seed), 0
        self._nights: list[Night] = []

    def next(self, *, fault: str = "") -> dict[str, Any]:
        """Compare the next night with those before it."""
        night = self._draw(fault)
        previous = self._nights[0] if self._nights else None
        drift = compare_nights(night, previous, [n.manifest for n in self._nights], DriftOptions())
        if not fault:
            measured = night._replace(manifest=dataclasses.replace(night.manifest, drift=drift))
            self._nights, self._number = [measured, *self._nights][:NIGHTS], self._number + 1
        return drift

    def _draw(self, fault: str) -> Night:
        random, weekly = self._random, 1 + 0.3 * math.sin(2 * math.pi * self._number / 7)
        size = self._size * (0.05 if fault == "log_cut" else 1)
        asked = max(1, random.poisson(size * weekly))
        # Zipf's law: popular queries come back each night, rare ones do not.
        numbers = np.minimum(random.zipf(1.3, 3 * asked), POPULATION * asked)
        queries = sorted(set(numbers.tolist()))[:asked]
        rows: Rows = {name: [] for name in COLUMNS}
        for query in queries:
            _add(rows, query, self._number, fault, random)
        schema = pa.schema([TABLES["reranked"].field(name) for name in COLUMNS])
        table = pa.table(rows, schema=schema).sort_by([("query_id", "ascending"), ("rank", "ascending")])
        ids = sorted(set(rows["query_id"]))
        return Night(_manifest(self._number, len(queries), table.num_rows, fault, random), Sample(table, ids))


def _add(rows: Rows, query: int, night: int, fault: str, random: np.random.Generator) -> None:
    """Add a query's list of that night."""
    own = np.random.default_rng(query)
    count, level = int(min(20, own.geometric(0.08))), own.normal(-1, 1.5)
    changes = own.integers(0, 50, count)  # the night, of fifty, in which a document becomes another one
    found = []
    for place in range(count):
        version = (night - int(changes[place])) // 50
        if fault == "half_index" and _draw_of(query, place, "kept") % 2:
            continue
        name = f"{'x' if fault == 'another_index' else 'd'}{query}-{place}-{version}"
        of_passage = np.random.default_rng(_draw_of(query, place, version))
        logit = 0.3 if fault == "constant_model" else level + of_passage.normal(0, 1)
        if fault == "random_scores":
            logit = random.normal(5, 1)
        found.append((logit, name, of_passage))
    for rank, (logit, name, of_passage) in enumerate(sorted(found, key=lambda one: -one[0]), start=1):
        row = {
            "query_id": hashlib.sha256(str(query).encode()).hexdigest()[:16],
            "passage_id": name,
            "rank": rank,
            "logit": logit,
            "fused_logit": None,
            "score": 1 / (1 + math.exp(-logit)),
            "hop": int(of_passage.integers(-1, 3)),
            "role": ROLES[int(of_passage.integers(0, len(ROLES)))],
            "causal": bool(of_passage.random() < 0.15),
            "reasoning": bool(of_passage.random() < 0.3),
            "entities": ["e"] * int(of_passage.poisson(2)),
        }
        for column, value in row.items():
            rows[column].append(value)


def _draw_of(*key: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")


def _manifest(number: int, queries: int, rows: int, fault: str, random: np.random.Generator) -> Manifest:
    events = int(queries + random.poisson(2 * queries))
    bad = int(random.binomial(events, 0.9 if fault == "dead_letters" else 0.01))
    none_found = int(random.binomial(queries, 0.03))
    gain = 0.1 + random.normal(0, 0.3 / math.sqrt(max(1, queries // 2)))
    reused = 0 if not number else int(random.binomial(rows, 0.8))
    return Manifest(
        run_id=f"night-{number}",
        run_date=f"2026-01-01+{number}",
        created_at="",
        nightrank_version="",
        config={},
        source={},
        window=None,
        previous_run_id=f"night-{number - 1}" if number else None,
        model_fingerprint="m",
        tagger_fingerprint="t",
        stages={},
        balance=Balance(
            events={"read": events + bad, "kept": events, "rejected": bad},
            queries={"read": queries + none_found, "published": queries, "rejected": none_found},
            pairs={"read": rows, "published": rows - reused, "reused": reused},
        ),
        mining={},
        degraded={},
        rejected={"ReadQueryLog/bad_json": bad, "FetchCandidates/no_candidates": none_found},
        metrics={"document": {"queries": queries // 2, "before nDCG@10": 0.5, "after nDCG@10": 0.5 + gain}},
        tables={"reranked": TableInfo("", 1, rows, {})},
        seconds=1.0,
    )


FAULTS = ("half_index", "another_index", "constant_model", "random_scores", "log_cut", "dead_letters")
"""What a broken night is broken by."""

if __name__ == "__main__":
    main()
