"""Clicks: how many positives of mining are relevant by the judgements, with and without a correction of position bias.

    python -m benchmarks.clicks [--quick] [--json FILE]

Nights over the bundled log, whose judgements are known; without a model, since the positives do not depend on one.

- right_RULE, positives_RULE: share of the judged queries' positives that are relevant, and their number, for documents
  clicked once, clicked three times, and corrected for position bias (labels.debias).
- propensity_error: largest difference between an estimated propensity and the one that generated the log.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import SAMPLE, parser, report, sample_config
from pipelines.nightly.run import run
from pipelines.storage import filesystem, runs
from rerank_core.evaluation.qrels import by_query_id, read_qrels, read_queries

RULES: dict[str, dict[str, Any]] = {
    "clicked_once": {},
    "clicked_three_times": {"min_clicks": 3},
    "debiased": {"debias": True},
}
DAY = datetime.date(2026, 3, 8)


class NoModel:
    """A scorer without a model: every logit is 0."""

    fingerprint = "none"

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        return np.zeros(len(pairs), np.float32)


def main() -> None:
    args = parser(__doc__).parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, labels in list(RULES.items())[-1 if args.quick else 0 :]:
            config = sample_config(
                Path(folder),
                log=SAMPLE / "query_log.jsonl",
                output=name,
                labels=labels,
                tags={"enabled": False},
                evidence={"top_n": 0},
            )
            manifest = run(config, run_date=DAY, load=NoModel)
            pairs = positives(runs.table_files(config.output.path, manifest, "hard_negatives"))
            figures |= {f"right_{name}": right(pairs), f"positives_{name}": len(pairs)}
            if manifest.places:
                differences = [abs(p["examined"] - 1 / n) for n, p in enumerate(manifest.places, start=1)]
                figures["propensity_error"] = max(differences)
    report(figures, args.json)


def positives(files: list[str]) -> set[tuple[str, str]]:
    """(query_id, doc_id) of the positives that negatives were mined for."""
    tables = [filesystem.read_table(path, ["query_id", "positive_id"]) for path in files]
    return {tuple(row.values()) for table in tables for row in table.to_pylist()}


def right(pairs: set[tuple[str, str]]) -> float:
    """Share of the judged (query_id, doc_id) that are relevant."""
    qrels = by_query_id(
        read_queries(str(SAMPLE / "queries.jsonl")), read_qrels(str(SAMPLE / "qrels" / "dev.tsv"))
    )
    judged = [(query, doc) for query, doc in pairs if query in qrels]
    return sum(qrels[query].get(doc, 0) > 0 for query, doc in judged) / len(judged)


if __name__ == "__main__":
    main()
