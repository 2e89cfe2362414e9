"""The manifest of a run, from what was verified in its files."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import pipelines
from pipelines.evaluate.published import before_and_after
from pipelines.nightly.cascade import read_fitted
from pipelines.nightly.prepare import Night
from pipelines.nightly.verify import Verified
from rerank_core.config.night import to_dict
from schemas.manifest import Manifest


def make_manifest(night: Night, verified: Verified, *, seconds: float) -> Manifest:
    mined = verified.stages.get("MineHardNegatives", {})
    rules: dict[str, dict[str, int]] = {"kept": {}, "rejected": {}}
    for what, count in mined.items():
        side, _, rule = what.partition(":")
        if rule:
            rules[side][rule] = int(count)
    truncated = int(verified.stages.get("ScoreCandidates", {}).get("overflow_pairs", 0))
    degraded: dict[str, int | str] = {"truncated_pairs": truncated}
    if halved := int(verified.stages.get("ScoreCandidates", {}).get("memory_halvings", 0)):
        degraded["memory_halvings"] = halved
    if failed := int(verified.stages.get("FindEvidence", {}).get("failed", 0)):
        degraded["units_without_evidence"] = failed
    if failed := int(verified.stages.get("FetchCandidates", {}).get("second_searches_failed", 0)):
        degraded["second_searches_failed"] = failed
    if failed := int(verified.stages.get("PruneCandidates", {}).get("cheap_failed", 0)):
        degraded["cheap_scores_failed"] = failed
    if night.previous.problem:
        degraded["reuse"] = night.previous.problem
    labels = night.config.labels
    places = _places(verified.stages) if labels.debias and labels.source == "clicks" else None
    if places == []:
        degraded["labels"] = (
            f"no event tells in '{night.config.log.fields.impressions}' what was shown, so that no click could be "
            "corrected and nothing counts as a positive; name the column, or set labels.debias = false"
        )
    if night.fusion and night.fusion.reads_tags and not night.config.tags.enabled:
        degraded["fusion"] = (
            "its weights were fitted with tags, but tags.enabled = false; switch them on, or fit weights by "
            "nightrank fuse --no-tags"
        )
    cascade = None
    if night.sample_queries:
        cascade = read_fitted(night.staging) | {"cheap_fingerprint": night.cheap_fingerprint}
    if cascade and cascade["margin"] is None and cascade["queries"] < verified.balance.queries["published"]:
        degraded["cascade"] = (
            f"no rule keeps within cascade.max_loss = {cascade['max_loss']:g} on a sample of {cascade['queries']} "
            "queries: everything was scored in full; raise cascade.sample_queries"
        )
    return Manifest(
        run_id=night.run_id,
        run_date=night.run_date,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        nightrank_version=pipelines.__version__,
        config=to_dict(night.config),
        source=night.described,
        window=(night.window[0].isoformat(), night.window[1].isoformat()) if night.window else None,
        previous_run_id=night.previous.run_id,
        model_fingerprint=night.model_fingerprint,
        tagger_fingerprint=night.tagger_fingerprint,
        facts_fingerprint=night.facts_fingerprint,
        stages={
            stage: {what: amount for what, amount in tally.items() if ":" not in what}
            for stage, tally in verified.stages.items()
        },
        balance=verified.balance,
        mining=rules,
        degraded=degraded,
        rejected=verified.rejected,
        metrics=before_and_after(night.staging, night.judged),
        tables=verified.tables,
        seconds=round(seconds, 3),
        cascade=cascade,
        places=places,
        calibration=night.calibrated,
        fusion=night.fused | {"cheap_fingerprint": night.cheap_fingerprint} if night.fused else None,
    )


def _places(stages: Mapping[str, Mapping[str, float]]) -> list[dict[str, float]]:
    """What labels.debias found of each place of a result list, from the first."""
    log = stages["ReadQueryLog"]
    count = sum(what.startswith("examined:") for what in log)
    names = ("examined", "impressions")
    return [{name: log[f"{name}:{place}"] for name in names} for place in range(1, count + 1)]
