"""Clicks: how many labels of mining are right by the judgements, by the rules that make labels of clicks.

    python -m benchmarks.clicks [--set DIR] [--quick] [--json FILE]

Nights over the bundled log, or over one that is drawn like it for 600 train questions of a set in BEIR's layout.
Without a model: BM25's order is kept, as positives do not depend on it, and hard negatives are its first that may be.

- positives_RULE, right_RULE: positives of the questions as they are judged, and the share that is relevant. The rules:
  documents clicked once, clicked three times, corrected for position bias (labels.debias), and that with negatives that
  users saw and passed over alone (labels.shown_negatives_only, labels.max_negative_attraction = 0.05).
- negatives_RULE, wrong_RULE: hard negatives, and the share that is relevant all the same.
- propensity_error: largest difference between an estimated propensity and the one that generated the log.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import SAMPLE, parser, report, sample_config
from benchmarks.searched_set import read_questions, share_relevant, write_log, write_set
from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from pipelines.storage import filesystem, runs

RULES: dict[str, dict[str, Any]] = {
    "clicked_once": {},
    "clicked_three_times": {"min_clicks": 3},
    "debiased": {"debias": True},
    "passed_over": {"debias": True, "shown_negatives_only": True, "max_negative_attraction": 0.05},
}
DAY = datetime.date(2026, 3, 8)
ASKED, EVENTS = 600, 16_000  # of --set: the events of a question are as many as in the bundled log


class NoModel:
    """A scorer without a model: every logit is 0."""

    fingerprint = "none"

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        return np.zeros(len(pairs), np.float32)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument(
        "--set", type=Path, metavar="DIR", help="a folder in BEIR's layout, with a train split"
    )
    args = flags.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        truth, log = SAMPLE, SAMPLE / "query_log.jsonl"
        if args.set:
            truth, log = folder / "set", folder / "log.jsonl"
            asked = read_questions(args.set, "train")
            write_set(truth, args.set / "corpus.jsonl", asked.part(list(asked.texts)[:ASKED]))
            write_log(truth, log, events=EVENTS, days=7)
            build_index(truth, folder / "index")  # of which `sample_config` makes no other
        for name, labels in list(RULES.items())[-2 if args.quick else 0 :]:
            figures |= measure(folder, name, labels, truth=truth, log=log)
    report(figures, args.json)


def measure(folder: Path, name: str, labels: dict[str, Any], *, truth: Path, log: Path) -> dict[str, float]:
    """The figures of one night."""
    config = sample_config(
        folder,
        log=log,
        output=name,
        labels=labels,
        tags={"enabled": False},
        evidence={"top_n": 0},
        mining={"easy_negatives": 0},
        drift={"enabled": False},  # which would hold a night whose scores are all the same
    )
    manifest = run(config, run_date=DAY, load=NoModel)
    files = runs.table_files(config.output.path, manifest, "hard_negatives")
    positives, negatives = labelled(files, "positive_id"), labelled(files, "negative_id")
    figures = {
        f"positives_{name}": len(positives),
        f"right_{name}": share_relevant(truth, positives),
        f"negatives_{name}": len(negatives),
        f"wrong_{name}": share_relevant(truth, negatives),
    }
    if manifest.places:
        differences = [abs(p["examined"] - 1 / n) for n, p in enumerate(manifest.places, start=1)]
        figures["propensity_error"] = max(differences)
    return figures


def labelled(files: Sequence[str], column: str) -> set[tuple[str, str]]:
    """(query_id, doc_id) of a column of the table `hard_negatives`: positive_id or negative_id."""
    tables = [filesystem.read_table(path, ["query_id", column]) for path in files]
    return {tuple(row.values()) for table in tables for row in table.to_pylist()}


if __name__ == "__main__":
    main()
