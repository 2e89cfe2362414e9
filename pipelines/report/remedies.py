"""What the entries of a manifest's `degraded` mean, and what to do about them; docs/operating.md prints this table."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """An entry of `degraded`."""

    meaning: str
    remedy: str  # "" where there is none


DEGRADED: dict[str, Entry] = {
    "truncated_pairs": Entry(
        "pairs longer than `scoring.max_length`",
        "a larger `scoring.max_length`, or smaller units (`candidates.unit`)",
    ),
    "memory_halvings": Entry("batches were halved because memory ran out", "a lower `scoring.max_tokens`"),
    "units_without_evidence": Entry("units whose sentences the model could not score", ""),
    "queries_without_candidates": Entry(
        "queries that found no document, each a dead letter",
        "the index, or its language; `output.max_no_candidates_share` stops a night with many",
    ),
    "second_searches_failed": Entry("second searches without a result", "the cluster's health"),
    "cheap_scores_failed": Entry("candidates without a first-stage score", ""),
    "no_text": Entry(
        "candidates whose document has no text, each a dead letter",
        "`text_fields`, or the documents in the index",
    ),
    "reuse": Entry("why the previous run was not reused", ""),
    "replaced": Entry(
        "what was wrong with an earlier copy of this very run, which it replaced", "the disk's health"
    ),
    "labels": Entry(
        "clicks could not be corrected for position",
        "name `log.fields.impressions`, or `labels.debias = false`",
    ),
    "fusion": Entry(
        "the weights use tags, but tags are off",
        "`tags.enabled = true`, or weights fitted with `--no-tags`",
    ),
    "row_by_row": Entry(
        "the model's batches give other scores than its rows alone, so every row was scored alone",
        "another `scoring.backend`, or a new export",
    ),
    "cascade": Entry("no margin keeps the bound; everything was scored", "a larger `cascade.sample_queries`"),
    "deadline": Entry(
        "the deadline came before some queries, which keep an earlier list or have none",
        "a later `plan.finish_by`, a faster engine, or fewer candidates",
    ),
    "model": Entry(
        "no model of the registry serves yet, so the one that ships with Nightrank scored",
        "`nightrank promote`",
    ),
}
"""By name. A key that is not here is shown with its own value."""
