"""The nights that tonight is compared with, from their manifests alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines.storage.runs import read_manifest, run_ids
from rerank_core.drift.rules import Value
from schemas.errors import ManifestError
from schemas.manifest import Manifest

NIGHTS = 7
"""Nights of the median."""

_OF_QUERIES = ("no_candidates", "search_failed", "all_candidates_rejected")


class Earlier(NamedTuple):
    """Earlier nights, the newest first, one run a date; and what could not be read."""

    nights: list[Manifest]
    notes: list[str]


def earlier_nights(output: str, *, run_date: str, run_id: str) -> Earlier:
    """The newest published runs of up to NIGHTS dates that are not later than `run_date`, but for the run itself."""
    found: dict[str, list[str]] = {}
    for date, name in run_ids(output):
        if date <= run_date and name != run_id:
            found.setdefault(date, []).append(name)
    earlier = Earlier([], [])
    for date in sorted(found, reverse=True):
        if len(earlier.nights) == NIGHTS:
            break
        readable = [
            manifest for name in found[date] if (manifest := _read(output, date, name, earlier.notes))
        ]
        if readable:
            earlier.nights.append(max(readable, key=lambda manifest: (manifest.created_at, manifest.run_id)))
    return earlier


def _read(output: str, run_date: str, run_id: str, notes: list[str]) -> Manifest | None:
    try:
        return read_manifest(output, run_date, run_id)
    except ManifestError as error:
        notes.append(f"run {run_id} of {run_date} is left out: {error}")
        return None


def measures_of(manifest: Manifest) -> dict[str, Value]:
    """The measures of a run that its manifest holds, also where it was not compared with any other."""
    balance = manifest.balance
    events, queries, pairs = balance.events, balance.queries, balance.pairs
    asked, kept = queries.get("read", 0), events.get("kept", 0)
    values = {"queries": Value(asked, asked), "events": Value(kept, min(asked, kept))}
    searched = asked - queries.get("stale", 0) - not_reached(manifest)
    if searched > 0:
        values["candidates_per_query"] = Value(pairs.get("read", 0) / searched, searched)
    scored = pairs.get("published", 0) + pairs.get("reused", 0)
    if scored and manifest.previous_run_id:
        values["reused_share"] = Value(pairs.get("reused", 0) / scored, queries.get("published", 0))
    for level, gain in manifest.gains.items():
        values["ndcg_gain"] = Value(gain, int(manifest.metrics[level].get("queries", 0)))
        break  # documents, where they are judged
    return values


def is_cut_off(manifest: Manifest) -> bool:
    """Whether a deadline came before some queries of a run."""
    return bool(manifest.balance.queries.get("stale", 0) or not_reached(manifest))


def not_reached(manifest: Manifest) -> int:
    """Queries without any list, since the deadline came first."""
    return sum(number for letter, number in manifest.rejected.items() if _of_deadline(letter))


def letters_of(manifest: Manifest) -> list[str]:
    """The dead letters "STAGE/REASON" of a run that are compared: what a deadline left out is no fault."""
    return sorted(letter for letter in manifest.rejected if not _of_deadline(letter))


def _of_deadline(letter: str) -> bool:
    return letter.endswith("/not_reached")


def dead_letters_of(manifest: Manifest, letter: str) -> Value | None:
    """Share of the records of its kind that became a dead letter "STAGE/REASON"; None if there were no such records."""
    stage, _, slug = letter.partition("/")
    unit = "events" if stage == "ReadQueryLog" else "queries" if slug in _OF_QUERIES else "pairs"
    read = getattr(manifest.balance, unit).get("read", 0)
    # A document without text is a dead letter for each query that finds it: queries are what is independent.
    independent = read if unit == "events" else manifest.balance.queries.get("read", 0)
    return Value(manifest.rejected.get(letter, 0) / read, independent) if read else None


def stored_measure(manifest: Manifest, name: str) -> float | None:
    """A measure that was made from a run's rows; None if the run was not measured."""
    held: Any = manifest.drift
    for key in ("measures", name, "tonight"):
        held = held.get(key) if isinstance(held, dict) else None
    return float(held) if isinstance(held, int | float) else None
