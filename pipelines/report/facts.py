"""The four figures at the head of a page: against BM25, against last night, time and cost, lists."""

from __future__ import annotations

import math
from typing import NamedTuple

from pipelines.report.scan import Scan
from pipelines.report.text import count, duration, points, share
from pipelines.report.verdict import Gain, gain_over_bm25, stale_lists
from rerank_core.evaluation.significance import mean_interval
from schemas.manifest import Manifest


class Fact(NamedTuple):
    """One figure with what it means."""

    name: str
    value: str
    notes: list[str]


def facts(manifest: Manifest, last_night: Manifest | None, scanned: Scan) -> list[Fact]:
    """The figures at the head of a page, in their order."""
    return [
        _against_bm25(manifest),
        _against_last_night(last_night, scanned),
        _time(manifest),
        _lists(manifest),
    ]


def why_not_judged(manifest: Manifest) -> str:
    """Why there is no measure of quality."""
    evaluation = manifest.config.get("evaluation", {})
    if not evaluation.get("queries"):
        return "No judgements are configured. With [evaluation] every night says how much better it is than BM25."
    if not manifest.metrics:
        return "Tonight's log asked none of the judged queries."
    if manifest.balance.pairs.get("below_top_n"):
        return "Lists are cut at ranking.top_n, so BM25's order of what was left out is not known."
    return "This run was published by a version that did not measure the gain."


def last_night_gain(scanned: Scan) -> Gain | None:
    """The paired change in nDCG@10 since last night; None where no judged query was published in both."""
    changes = scanned.judged.since_last_night() if scanned.judged else []
    if not changes:
        return None
    low, high = mean_interval(changes) or (None, None)
    return Gain(math.fsum(changes) / len(changes), low, high, len(changes))


def _against_bm25(manifest: Manifest) -> Fact:
    gain = gain_over_bm25(manifest)
    if gain is None:
        return Fact("Against BM25", "not measured", [why_not_judged(manifest)])
    values = next(level for level in manifest.metrics.values() if "gain nDCG@10" in level)
    before, after = (100 * values[f"{side} nDCG@10"] for side in ("before", "after"))
    said = {"better": "Better by more than chance.", "worse": "Worse by more than chance."}
    return Fact(
        "Against BM25",
        f"{points(gain.value)} points",
        [
            f"nDCG@10 from {before:.1f} to {after:.1f} of 100, {count(gain.queries)} judged queries; "
            f"{_interval(gain)}.",
            said.get(gain.verdict, "That may be chance."),
        ],
    )


def _against_last_night(last_night: Manifest | None, scanned: Scan) -> Fact:
    if last_night is None:
        return Fact("Against last night", "first night", ["There is no earlier run to compare with."])
    moved = scanned.common - scanned.unmoved
    lists = f"{count(moved)} of {count(scanned.common)} lists of both nights changed among the first ten."
    gain = last_night_gain(scanned)
    if gain is None:
        changed = f"{share(moved / scanned.common)} changed" if scanned.common else "no list in common"
        return Fact("Against last night", changed, [lists] if scanned.common else [])
    if gain.value == 0 and gain.low == gain.high:
        return Fact(
            "Against last night", "no change", [f"nDCG@10 of {count(gain.queries)} judged queries.", lists]
        )
    chance = "" if gain.verdict != "open" else " That may be chance."
    return Fact(
        "Against last night",
        f"{points(gain.value)} points",
        [f"nDCG@10, {count(gain.queries)} judged queries of both nights; {_interval(gain)}.{chance}", lists],
    )


def _time(manifest: Manifest) -> Fact:
    pairs = manifest.balance.pairs
    done = pairs.get("published", 0) + pairs.get("reused", 0)
    rate = f"{count(done)} pairs, {count(done / max(1e-9, manifest.seconds))} a second"
    reused = f"; {share(pairs.get('reused', 0) / done)} with last night's score" if done else ""
    notes = [f"{rate}{reused}."]
    per_hour = manifest.config.get("plan", {}).get("cost_per_hour") or 0
    if per_hour:
        notes.append(f"Cost {manifest.seconds / 3600 * per_hour:,.2f} at plan.cost_per_hour = {per_hour:g}.")
    return Fact("Time and cost" if per_hour else "Time", duration(manifest.seconds), notes)


def _lists(manifest: Manifest) -> Fact:
    queries = manifest.balance.queries
    stale, rejected = stale_lists(manifest), queries.get("rejected", 0)
    failed = f"; {count(rejected)} have none" if rejected else ""
    notes = [f"For {count(queries.get('read', 0))} queries of the log{failed}."]
    if stale:
        dates = ", ".join(
            f"{count(number)} of {date}" for date, number in sorted((manifest.stale or {}).items())
        )
        notes.append(f"{count(stale)} lists are of an earlier night: {dates}.")
    else:
        notes.append("All of them are tonight's.")
    return Fact("Lists", count(queries.get("published", 0) + stale), notes)


def _interval(gain: Gain) -> str:
    if gain.low is None or gain.high is None:
        return "too few for an interval"
    return f"95 % interval {points(gain.low)} to {points(gain.high)}"
