"""The manifest of a run, from what was verified in its files."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pipelines
from pipelines.evaluate.published import before_and_after
from pipelines.nightly.cascade import read_fitted
from pipelines.nightly.prepare import Night, inputs_fingerprint
from pipelines.nightly.verify import NO_CANDIDATES, NOT_REACHED, Stages, Verified
from rerank_core.config.night import to_dict
from rerank_core.redact import redact_tree
from schemas.manifest import Manifest

Cascade = dict[str, Any] | None  # the manifest's entry


def make_manifest(night: Night, verified: Verified, *, seconds: float) -> Manifest:
    """Everything that a run publishes about itself.

    Args:
        seconds: wall time of the run.
    """
    run, models, cascade = night.run, night.models, _cascade(night)
    return Manifest(
        run_id=run.run_id,
        run_date=run.run_date,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        nightrank_version=pipelines.__version__,
        config=redact_tree(to_dict(night.config)),
        source=redact_tree(night.source_record),
        window=(run.window[0].isoformat(), run.window[1].isoformat()) if run.window else None,
        previous_run_id=night.previous.run_id,
        model_fingerprint=models.scorer.fingerprint,
        tagger_fingerprint=models.tagger.fingerprint if models.tagger else None,
        facts_fingerprint=models.tagger.facts_fingerprint if models.tagger else None,
        stages={
            stage: {key: amount for key, amount in tally.items() if ":" not in key}
            for stage, tally in verified.stages.items()
        },
        balance=verified.balance,
        mining=_mining(verified.stages),
        degraded=redact_tree(degraded(night, verified, cascade)),
        rejected=verified.rejected,
        metrics=before_and_after(
            run.staging, night.judged, whole_lists=not verified.balance.pairs["below_top_n"]
        ),
        tables=verified.tables,
        seconds=round(seconds, 3),
        cascade=cascade,
        places=_positions(night, verified.stages),
        calibration=models.calibration_record,
        fusion=models.fusion_record and models.fusion_record | _first_stage(night),
        stale=verified.stale or None,
        model=redact_tree(night.registered.entry),
        inputs=inputs_fingerprint(night.config, night.source_record, models, labels=night.labels),
    )


def _first_stage(night: Night) -> dict[str, str]:
    return {"cheap_fingerprint": night.models.first_stage_fingerprint}


def _cascade(night: Night) -> Cascade:
    """The rule that was fitted on the sample, and its loss; None without a cascade."""
    return read_fitted(night.run.staging) | _first_stage(night) if night.sample_queries else None


def _mining(stages: Stages) -> dict[str, dict[str, int]]:
    """Hard negatives kept and rejected, by rule; their tallies are named "kept:RULE" and "rejected:RULE"."""
    rules: dict[str, dict[str, int]] = {"kept": {}, "rejected": {}}
    for key, count in stages.get("MineHardNegatives", {}).items():
        outcome, _, rule = key.partition(":")
        if rule:
            rules[outcome][rule] = int(count)
    return rules


def _positions(night: Night, stages: Stages) -> list[dict[str, float]] | None:
    """Propensity and impressions of each rank of a result list, from the first; None without labels.debias."""
    labels, log = night.config.labels, stages["ReadQueryLog"]
    if not (labels.debias and labels.source == "clicks"):
        return None
    count = sum(key.startswith("examined:") for key in log)
    names = ("examined", "impressions")
    return [{name: log[f"{name}:{rank}"] for name in names} for rank in range(1, count + 1)]


# --- what was done less well than configured

COUNTED = {
    "truncated_pairs": ("ScoreCandidates", "overflow_pairs"),
    "memory_halvings": ("ScoreCandidates", "memory_halvings"),
    "units_without_evidence": ("FindEvidence", "failed"),
    "second_searches_failed": ("FetchCandidates", "second_searches_failed"),
    "cheap_scores_failed": ("PruneCandidates", "cheap_failed"),
}
"""Entries of `degraded` that are numbers, by the tally that holds them."""


def degraded(night: Night, verified: Verified, cascade: Cascade) -> dict[str, int | str]:
    """What was done less well than configured: a number or an explanation for each; truncated_pairs always."""
    entries: dict[str, int | str] = {}
    for key, (stage, tally) in COUNTED.items():
        count = int(verified.stages.get(stage, {}).get(tally, 0))
        if count or key == "truncated_pairs":
            entries[key] = count
    if without := verified.rejected.get("FetchCandidates/no_text"):
        entries["no_text"] = without
    if without := verified.rejected.get(NO_CANDIDATES, 0):
        entries["queries_without_candidates"] = without
    for key, explain in EXPLAINED.items():
        if text := explain(night, verified, cascade):
            entries[key] = text
    return entries


def _not_reused(night: Night, verified: Verified, cascade: Cascade) -> str | None:
    return night.previous.problem


def _clicks_not_corrected(night: Night, verified: Verified, cascade: Cascade) -> str | None:
    if _positions(night, verified.stages) != []:
        return None
    return (
        f"no event says in '{night.config.log.fields.impressions}' which documents were shown, so clicks could not be "
        "corrected for position and nothing counts as a positive; set log.fields.impressions to the column that "
        "does, or labels.debias = false"
    )


def _fusion_without_tags(night: Night, verified: Verified, cascade: Cascade) -> str | None:
    fusion = night.models.fusion
    if not (fusion and fusion.reads_tags) or night.config.tags.enabled:
        return None
    return (
        "the fusion weights were fitted with tags, but tags.enabled = false; set it to true, or fit weights by "
        "nightrank fuse --no-tags"
    )


def _nothing_pruned(night: Night, verified: Verified, cascade: Cascade) -> str | None:
    if not cascade or cascade["margin"] is not None:
        return None
    if cascade["queries"] >= verified.balance.queries["published"]:  # the sample was the whole night
        return None
    return (
        f"no rule keeps the loss within cascade.max_loss = {cascade['max_loss']:g} on a sample of "
        f"{cascade['queries']} queries, so all candidates were scored in full; raise cascade.sample_queries"
    )


def _cut_off(night: Night, verified: Verified, cascade: Cascade) -> str | None:
    """What the deadline left out; the tallies named "not_reached:COUNT" count queries by how often they are asked."""
    counted = {
        int(key.partition(":")[2]): int(queries)
        for key, queries in verified.stages.get("WriteReranked", {}).items()
        if key.startswith("not_reached:")
    }
    if not counted or night.run.finish_by is None:
        return None
    queries, searches = verified.balance.queries, verified.balance.events["kept"]
    fresh = 1 - sum(count * number for count, number in counted.items()) / max(1, searches)
    return (
        f"{night.run.finish_by.isoformat(timespec='minutes')} came before {sum(counted.values())} of "
        f"{queries['read']} queries: {queries['stale']} keep an earlier list, {verified.rejected.get(NOT_REACHED, 0)} "
        f"have none; all that are asked more than {max(counted)} times were reached, {fresh:.1%} of the searches have "
        "a fresh list. Start the night earlier, set a later finish_by, or use a faster model"
    )


def _no_serving_model(night: Night, verified: Verified, cascade: Cascade) -> str | None:
    return night.registered.note or None


def _row_by_row(night: Night, verified: Verified, cascade: Cascade) -> str | None:
    models = {"scoring.model": night.models.scorer, "the first-stage model": night.models.first_stage}
    found = [f"{name}: {model.row_by_row}" for name, model in models.items() if model and model.row_by_row]
    if not found:
        return None
    return (
        f"every row was scored alone, which is slower, as batches are wrong here ({'; '.join(found)}); the scores are "
        "right: another scoring.backend or export of the model may be faster"
    )


EXPLAINED: dict[str, Callable[[Night, Verified, Cascade], str | None]] = {
    "reuse": _not_reused,
    "labels": _clicks_not_corrected,
    "fusion": _fusion_without_tags,
    "cascade": _nothing_pruned,
    "row_by_row": _row_by_row,
    "deadline": _cut_off,
    "model": _no_serving_model,
}
"""Entries of `degraded` that are texts; None where there is nothing to say."""
