"""Which measures of a night are judged, how, and by which key; from a measure to a verdict with its reason.

A limit is exceeded where tonight is beyond it and beyond what chance gives with so few records. Measures that have a
value every night are compared with last night's and with the week's median, and the nearer of the two counts: a weekend
differs from its Friday but not from its week, and after a bad night the next good one differs from that night alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from typing import Literal, NamedTuple

from rerank_core.drift.distributions import (
    chance_of_ks,
    chance_of_mean,
    chance_of_psi,
    chance_of_share,
    fewer_by_chance,
)

Verdict = Literal["ok", "warn", "hold"]
SEVERITY: dict[str, int] = {"ok": 0, "warn": 1, "hold": 2}

Kind = Literal["count", "mean", "fall", "rise", "change", "gain", "least", "most", "psi", "ks"]
"""count, mean: the limit is the least share of the reference. fall, rise, change: the largest change of a share in that
direction, or in any; gain: the largest fall of a mean of nDCG. least, most: a bound of tonight's value itself, as are
those of the two distances psi and ks, which are to last night alone.
"""

BEYOND: dict[Kind, str] = {
    "count": "a smaller share than",
    "mean": "a smaller share than",
    "fall": "a larger fall than",
    "rise": "a larger rise than",
    "change": "a larger change than",
    "gain": "a larger fall than",
    "least": "less than",
    "most": "more than",
    "psi": "more than",
    "ks": "more than",
}
"""What a reason says of a limit that was exceeded."""

GAIN_DEVIATION = 0.3  # of single queries' change of nDCG@10, about what judged sets show


class Rule(NamedTuple):
    """How a measure is judged."""

    kind: Kind
    key: str  # in [drift.warn] and [drift.hold]
    meaning: str  # for the reasons
    follows: tuple[
        str, ...
    ] = ()  # what may have been changed on purpose: log, candidates, scores, tags, judgements


_CANDIDATES, _SCORES = ("candidates",), ("scores",)
RULES: dict[str, Rule] = {
    "queries": Rule("count", "queries", "queries of the log", ("log",)),
    "events": Rule("count", "events", "events of the log within the window", ("log",)),
    "candidates_per_query": Rule("mean", "candidates", "candidates per query", _CANDIDATES),
    "candidate_overlap": Rule(
        "least", "candidate_overlap", "share of last night's candidates still found", _CANDIDATES
    ),
    "overlap_at_10": Rule(
        "least", "overlap_at_10", "overlap of the first ten with last night's", _CANDIDATES + _SCORES
    ),
    "rank_correlation": Rule(
        "least", "rank_correlation", "rank correlation (Kendall's tau) with last night", _CANDIDATES + _SCORES
    ),
    "score_psi": Rule("psi", "score_psi", "PSI of the scores", _CANDIDATES),
    "score_ks": Rule("ks", "score_ks", "KS distance of the scores", _CANDIDATES),
    "top_score_psi": Rule("psi", "score_psi", "PSI of the first ten's scores", _CANDIDATES),
    "top_score_ks": Rule("ks", "score_ks", "KS distance of the first ten's scores", _CANDIDATES),
    "constant_scores": Rule(
        "most", "constant_scores", "share of queries whose candidates all have one score"
    ),
    "reused_share": Rule("fall", "reused_share", "share of pairs whose score was reused", _CANDIDATES),
    "dead_letters": Rule("rise", "dead_letters", "share of records that became this dead letter", ("log",)),
    "role_psi": Rule("psi", "tags", "PSI of the tag ROLE", ("tags", "candidates")),
    "hop_psi": Rule("psi", "tags", "PSI of the tag HOP", ("tags", "candidates")),
    "causal_share": Rule("change", "tag_share", "share of passages tagged CAUSAL", ("tags", "candidates")),
    "reasoning_share": Rule(
        "change", "tag_share", "share of passages tagged REASONING", ("tags", "candidates")
    ),
    "entities_per_passage": Rule("mean", "entities", "entities named per passage", ("tags", "candidates")),
    "ndcg_gain": Rule(
        "gain", "ndcg_gain", "gain of nDCG@10 over BM25 on the judged queries", ("judgements",)
    ),
}
"""By name; a measure "dead_letters:STAGE/REASON" is judged as "dead_letters"."""


class Value(NamedTuple):
    """A measure of one night, and of how many independent records it is, which chance depends on."""

    value: float
    records: int


class Limits(NamedTuple):
    """The limits of one measure; None: none."""

    warn: float | None
    hold: float | None


@dataclasses.dataclass(frozen=True)
class Measure:
    """A judged measure, as the manifest has it."""

    tonight: float
    previous: float | None
    median: float | None
    difference: float | None  # to the nearer of the two; None where tonight's value itself is judged
    warn: float | None
    hold: float | None
    verdict: Verdict


def rule_of(name: str) -> Rule:
    """The rule of a measure."""
    return RULES[name.partition(":")[0]]


def judge(
    name: str,
    tonight: Value,
    *,
    previous: Value | None,
    week: Iterable[Value],
    limits: Limits,
    min_queries: int,
) -> Measure:
    """Judge one measure.

    Args:
        name: one of RULES, with a suffix ":..." if there are several of the kind.
        tonight: its value.
        previous: last night's; of a distance ("psi", "ks"), how many records last night had.
        week: its values on earlier nights.
        limits: what warns and what holds.
        min_queries: a "least" or "most" of fewer records is not judged.
    """
    kind, middle = rule_of(name).kind, _median(list(week))
    if kind in ("least", "most", "psi", "ks"):
        before = previous.records if previous else 0
        verdict = _verdict(limits, partial(_is_beyond, kind, tonight, before, min_queries))
        last = previous if kind in ("least", "most") else None
        return _measure(tonight, last, middle, None, limits, verdict)
    verdicts: list[tuple[Verdict, float | None]] = [
        (_verdict(limits, partial(_differs, kind, tonight, other)), _difference(kind, tonight, other))
        for other in (previous, middle)
        if other is not None
    ]
    nearest = min(verdicts, key=lambda one: (SEVERITY[one[0]], _distance(kind, one[1])), default=("ok", None))
    return _measure(tonight, previous, middle, nearest[1], limits, nearest[0])


def reason(name: str, measure: Measure, *, previous: str) -> str:
    """One sentence: the measure, tonight's value, what it was compared with, and the key that sets the limit.

    Args:
        name: of a measure whose verdict is not "ok".
        previous: last night's run, such as "run 20260307-0123456789ab of 2026-03-07".
    """
    rule, what = rule_of(name), name.partition(":")[2]
    # Where something was changed on purpose, the limit that would hold warns, and there is none that holds.
    section = "hold" if measure.verdict == "hold" or measure.hold is None else "warn"
    limit = measure.hold if measure.verdict == "hold" else measure.warn
    known = []
    if measure.previous is not None:
        known.append(f"{_number(measure.previous)} in {previous}")
    elif rule.kind in ("least", "psi", "ks"):
        known.append(f"against {previous}")
    if measure.median is not None:
        known.append(f"{_number(measure.median)} in the median of the nights before")
    compared = f" ({', '.join(known)})" if known else ""
    subject = f"{what}: {rule.meaning}" if what else rule.meaning
    return (
        f"{subject}: {_number(measure.tonight)} tonight{compared}, {BEYOND[rule.kind]} drift.{section}.{rule.key} = "
        f"{limit:g} allows"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _verdict(limits: Limits, beyond: Callable[[float], bool]) -> Verdict:
    if limits.hold is not None and beyond(limits.hold):
        return "hold"
    return "warn" if limits.warn is not None and beyond(limits.warn) else "ok"


def _is_beyond(kind: Kind, tonight: Value, before: int, min_queries: int, limit: float) -> bool:
    """Whether tonight's value itself is beyond a limit, and beyond chance."""
    value, records = tonight
    if kind in ("least", "most"):
        return records >= min_queries and (value < limit if kind == "least" else value > limit)
    if not before or not records:
        return False
    chance = chance_of_psi(before, records) if kind == "psi" else chance_of_ks(before, records)
    return value > max(limit, chance)


def _differs(kind: Kind, tonight: Value, other: Value, limit: float) -> bool:
    """Whether tonight differs from another night by more than a limit, and by more than chance."""
    difference = _difference(kind, tonight, other)
    if difference is None or not tonight.records or not other.records:
        return False
    if kind == "count":  # events of one query come and go together
        share = other.records / other.value
        return difference < limit and not fewer_by_chance(tonight.value * share, other.value * share)
    if kind == "mean":  # as if single queries varied as widely as an exponential variable does
        chance = chance_of_mean(1.0, of=tonight.records, other_of=other.records)
        return difference < min(limit, math.exp(-chance))
    if kind == "gain":
        chance = chance_of_mean(GAIN_DEVIATION, of=tonight.records, other_of=other.records)
    else:
        chance = chance_of_share(tonight.value, other.value, of=tonight.records, other_of=other.records)
    change = {"fall": -difference, "gain": -difference, "rise": difference}.get(kind, abs(difference))
    return change > max(limit, chance)


def _difference(kind: Kind, tonight: Value, other: Value) -> float | None:
    if kind in ("count", "mean"):
        return tonight.value / other.value if other.value else None
    return tonight.value - other.value


def _distance(kind: Kind, difference: float | None) -> float:
    """How far a difference is from none."""
    if difference is None or (kind in ("count", "mean") and not difference):
        return math.inf
    return abs(math.log(difference)) if kind in ("count", "mean") else abs(difference)


def _median(values: list[Value]) -> Value | None:
    if not values:
        return None
    return Value(median(one.value for one in values), round(median(one.records for one in values)))


def _measure(
    tonight: Value,
    previous: Value | None,
    middle: Value | None,
    difference: float | None,
    limits: Limits,
    verdict: Verdict,
) -> Measure:
    return Measure(
        tonight=_shown(tonight.value),
        previous=None if previous is None else _shown(previous.value),
        median=None if middle is None else _shown(middle.value),
        difference=None if difference is None else _shown(difference),
        warn=limits.warn,
        hold=limits.hold,
        verdict=verdict,
    )


def _shown(number: float) -> float:
    return float(f"{number:.6g}")
