"""Tonight's staged run against last night's and against the week: the manifest's entry `drift`, with its verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from pipelines.drift import sample as sampling
from pipelines.drift.earlier import (
    dead_letters_of,
    earlier_nights,
    is_cut_off,
    letters_of,
    measures_of,
    stored_measure,
)
from pipelines.drift.sample import Sample, boundary, read_sample
from pipelines.storage.filesystem import files, join
from pipelines.storage.runs import table_files
from rerank_core.config.night import Config
from rerank_core.config.operation import DriftOptions
from rerank_core.drift.distributions import bin_counts, ks, psi, quantile_edges
from rerank_core.drift.ranks import overlap_at, rank_correlation
from rerank_core.drift.rules import SEVERITY, Limits, Measure, Value, judge, reason, rule_of
from schemas.errors import ManifestError
from schemas.manifest import Manifest

FIRST = 10  # ranks that count as the top of a list
SCORE_BINS = 20  # of the histogram for reports, between 0 and 1

Measured = dict[str, Value]


class Night(NamedTuple):
    """A night and the sample of its rows; None: they cannot be read."""

    manifest: Manifest
    sample: Sample | None


def compare(output: str, staging: str, manifest: Manifest, config: Config) -> dict[str, Any] | None:
    """Compare a staged run with earlier ones.

    Args:
        output: the output folder, for the earlier runs.
        staging: where tonight's tables are.
        manifest: tonight's.
        config: whose section `drift` has the limits.

    Returns:
        The manifest's `drift`: verdict, reasons (those that hold first), notes (what could not be compared, and why),
        previous, week, measures and histograms of the scores. None with drift.enabled = false.

    Raises:
        ManifestError: a staged file is damaged.
    """
    if not config.drift.enabled:
        return None
    earlier = earlier_nights(output, run_date=manifest.run_date, run_id=manifest.run_id)
    notes, tonight = list(earlier.notes), Night(manifest, _read_tonight(staging, manifest))
    previous = _read_previous(output, earlier.nights[0], tonight, notes) if earlier.nights else None
    found = compare_nights(tonight, previous, earlier.nights, config.drift)
    return found | {"notes": [*notes, *found["notes"]]}


def compare_nights(
    tonight: Night, previous: Night | None, week: list[Manifest], options: DriftOptions
) -> dict[str, Any]:
    """The same for nights that were read already; `week` are the manifests of the earlier ones, the newest first."""
    last = previous.manifest if previous else None
    changed = _changed(tonight.manifest, last) if last else {}
    measures = dict(_judged(tonight, previous, week, set(changed), options))
    name = f"run {last.run_id} of {last.run_date}" if last else "no earlier run"
    worst = sorted(measures, key=lambda key: -SEVERITY[measures[key].verdict])
    return {
        "verdict": measures[worst[0]].verdict,
        "reasons": [
            reason(key, measures[key], previous=name) for key in worst if measures[key].verdict != "ok"
        ],
        "notes": list(changed.values()) if last else ["there is no earlier night to compare with"],
        "previous": last and last.run_id,
        "week": [night.run_id for night in week],
        "measures": {key: dataclasses.asdict(measure) for key, measure in measures.items()},
        "scores": _histograms(tonight, previous),
    }


def _read_tonight(staging: str, manifest: Manifest) -> Sample:
    paths = files(join(staging, "reranked"), "part-*.parquet")
    return read_sample(paths, below=_boundary(manifest))


def _read_previous(output: str, last: Manifest, tonight: Night, notes: list[str]) -> Night:
    """Last night's sample, with what it has of tonight's queries."""
    try:
        paths = table_files(output, last, "reranked")
        also = tonight.sample.queries if tonight.sample else ()
        return Night(last, read_sample(paths, below=_boundary(last), also=also))
    except ManifestError as error:
        notes.append(f"lists and scores are not compared: {error}")
        return Night(last, None)


def _boundary(manifest: Manifest) -> str:
    fresh, lists = manifest.balance.queries.get("published", 0), manifest.balance.lists
    return boundary(fresh, manifest.tables["reranked"].rows * fresh // max(1, lists))


# --- what was changed on purpose


def _changed(tonight: Manifest, last: Manifest) -> dict[str, str]:
    """What was changed since last night, by its name in the rules, and what follows for the comparison."""
    lenient = "measures that depend on it warn at the limits of [drift.hold], and do not hold"
    changed = {}
    if any(tonight.config.get(name) != last.config.get(name) for name in ("log", "privacy")):
        changed["log"] = f"[log] or [privacy] is not as in run {last.run_id}: {lenient}"
    if tonight.config.get("evaluation") != last.config.get("evaluation"):
        changed["judgements"] = f"[evaluation] is not as in run {last.run_id}: {lenient}"
    if _search(tonight) != _search(last):
        changed["candidates"] = f"the search for candidates is not as in run {last.run_id}: {lenient}"
    if tonight.model_fingerprint != last.model_fingerprint:
        what = "the model"
    elif (tonight.calibration, tonight.fusion) != (last.calibration, last.fusion):
        what = "calibration or fusion"
    else:
        what = ""
    if what:
        changed["scores"] = f"{what} is not that of run {last.run_id}: scores are not compared, and {lenient}"
    if tonight.tagger_fingerprint != last.tagger_fingerprint:
        changed["tags"] = f"the tagger is not that of run {last.run_id}: {lenient}"
    return changed


def _search(manifest: Manifest) -> list[Any]:
    """What of the configuration decides which candidates are published; an index's path changes with its content."""
    source = manifest.config.get("source", {})
    cluster = source.get("elasticsearch", {})
    fields = ("title_field", "text_fields", "query_template", "filter")
    return [
        manifest.config.get("candidates"),
        manifest.config.get("ranking"),
        source.get("kind"),
        source.get("local"),
        [cluster.get(name) for name in fields],
    ]


# --- measures


def _judged(
    tonight: Night, previous: Night | None, week: list[Manifest], changed: set[str], options: DriftOptions
) -> Iterator[tuple[str, Measure]]:
    here, before = _levels(tonight), _levels(previous) if previous else {}
    if previous and previous.sample and tonight.sample:
        samples = (tonight.sample, previous.sample)
        if is_cut_off(tonight.manifest) or is_cut_off(previous.manifest):
            # What is asked often was reached, and need not look like what is asked once: the same queries are compared.
            samples = (tonight.sample.of(previous.sample.queries), previous.sample.of(tonight.sample.queries))
        here |= _distances(*samples, scores="scores" not in changed)
    for name, value in here.items():
        rule, others = rule_of(name), [_of_night(night, name, value.records) for night in week]
        limits = Limits(getattr(options.warn, rule.key), getattr(options.hold, rule.key))
        if changed & set(rule.follows):
            limits = Limits(limits.hold, None)
        last = before.get(name)
        if previous and rule.kind == "rise":  # also of a reason that there was none of
            last = _of_night(previous.manifest, name, value.records)
        if rule.kind in ("psi", "ks") and previous and previous.sample:
            last = Value(0.0, len(previous.sample.queries))
        yield (
            name,
            judge(
                name,
                value,
                previous=last,
                week=[one for one in others if one],
                limits=limits,
                min_queries=options.min_queries,
            ),
        )


def _levels(night: Night) -> Measured:
    """What has a value every night."""
    manifest, sample = night
    values = measures_of(manifest)
    for letter in letters_of(manifest):
        if share := dead_letters_of(manifest, letter):
            values[f"dead_letters:{letter}"] = share
    if sample is None or not sample.queries:
        return values
    queries = len(sample.queries)
    constant, several = sampling.constant_queries(sample)
    values["constant_scores"] = Value(constant, several)
    found = {f"{name}_share": sampling.tag_share(sample, name) for name in ("causal", "reasoning")}
    found["entities_per_passage"] = sampling.entities_per_passage(sample)
    return values | {name: Value(value, queries) for name, value in found.items() if value is not None}


def _of_night(night: Manifest, name: str, records: int) -> Value | None:
    """A measure of an earlier night, as its manifest has it."""
    kind, _, letter = name.partition(":")
    if kind == "dead_letters":
        return dead_letters_of(night, letter)
    if known := measures_of(night).get(name):
        return known
    stored = stored_measure(night, name)
    return None if stored is None else Value(stored, min(records, night.balance.lists))


def _distances(tonight: Sample, previous: Sample, *, scores: bool) -> Measured:
    """What only two nights together have."""
    values, queries = _rank_measures(tonight, previous), len(tonight.queries)
    pairs = {}
    if scores:
        for name, first in (("score", 0), ("top_score", FIRST)):
            pairs[name] = tuple(sampling.scores(night, first=first) for night in (previous, tonight))
    for name, (before, after) in pairs.items():
        if len(before) and len(after):
            edges = quantile_edges(before)
            shift = psi(bin_counts(before, edges), bin_counts(after, edges))
            values |= {f"{name}_psi": Value(shift, queries), f"{name}_ks": Value(ks(before, after), queries)}
    for tag in ("role", "hop"):
        was, is_ = (sampling.tag_counts(night, tag) for night in (previous, tonight))
        if was and is_:
            names = sorted(was | is_)
            shift = psi([was[name] for name in names], [is_[name] for name in names])
            values[f"{tag}_psi"] = Value(shift, queries)
    return values


def _rank_measures(tonight: Sample, previous: Sample) -> Measured:
    """How the lists of the queries of both nights differ, on average."""
    common = set(tonight.queries) & set(previous.queries)
    if not common:
        return {}
    after, before = (sampling.lists(night.of(common)) for night in (tonight, previous))
    found: Mapping[str, list[float | None]] = {
        "candidate_overlap": [len(set(before[q]) & set(after[q])) / len(before[q]) for q in common],
        "overlap_at_10": [overlap_at(before[q], after[q], FIRST) for q in common],
        "rank_correlation": [rank_correlation(before[q], after[q]) for q in common],
    }
    known = {name: [value for value in values if value is not None] for name, values in found.items()}
    return {name: Value(fmean(values), len(values)) for name, values in known.items() if values}


def _histograms(tonight: Night, previous: Night | None) -> dict[str, list[float]]:
    """How many sampled scores lie between two edges each, for both nights."""
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    counts = {}
    for name, night in (("tonight", tonight), ("previous", previous)):
        sample = night.sample if night else None
        counts[name] = np.histogram(sampling.scores(sample), edges)[0].tolist() if sample else []
    return {"edges": [round(edge, 6) for edge in edges.tolist()], **counts}
