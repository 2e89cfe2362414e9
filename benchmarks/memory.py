"""Peak memory of a night as the log grows: N and 10 N queries, with a constant-time scorer.

    python -m benchmarks.memory [--quick] [--json FILE]

2,000 and 20,000 queries (`--quick`: 200 and 2,000) with 50 candidates each, over the bundled passages, on the local
runner, each night in a new process. The scorer only looks at lengths, so everything but the model is measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import SAMPLE, parser, peak_rss_mb, report, sample_config
from pipelines.nightly.run import run

CANDIDATES = 50


class ConstantTime:
    """A scorer whose logits depend on the passages' lengths alone."""

    fingerprint = "constant-time"

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        return np.array([len(passage) % 17 / 17 for _, passage in pairs], dtype=np.float32)


def write_log(path: Path, queries: int) -> None:
    """Distinct random queries of thirty words, enough for each to match 50 passages."""
    words = sorted({w for line in (SAMPLE / "corpus.jsonl").open() for w in json.loads(line)["text"].split()})
    draw = random.Random(7)
    with path.open("w", encoding="utf-8") as log:
        for number in range(queries):
            event = {
                "timestamp": "2026-03-08T12:00:00Z",
                "query": f"{' '.join(draw.sample(words, 30))} {number}",
            }
            log.write(json.dumps(event) + "\n")


def one_night(queries: int) -> dict[str, float]:
    """Run a night in this process."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.jsonl")
        write_log(log, queries)
        config = sample_config(Path(folder), log=log, output="out", candidates={"top_k": CANDIDATES})
        start = time.perf_counter()
        manifest = run(config, run_date=datetime.date(2026, 3, 8), load=ConstantTime)
        seconds = time.perf_counter() - start
    return {
        "rss_mb": peak_rss_mb(),
        "pairs": manifest.balance.pairs["published"],
        "seconds": seconds,
    }


def in_a_process(queries: int) -> dict[str, float]:
    """The same in a new process, since a peak never decreases."""
    command = [sys.executable, "-m", "benchmarks.memory", "--night", str(queries)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    night: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{queries:,} queries, {night['pairs']:,} pairs: {night['rss_mb']:,.0f} MB, {night['seconds']:,.0f} s"
    )
    return night


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--night", type=int, help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.night:
        print(json.dumps(one_night(args.night)))
        return
    small, large = (200, 2_000) if args.quick else (2_000, 20_000)
    first, second = in_a_process(small), in_a_process(large)
    report(
        {
            "rss_mb_small": first["rss_mb"],
            "rss_mb_large": second["rss_mb"],
            "rss_growth": second["rss_mb"] / first["rss_mb"],
            "job_pairs_per_second_without_model": second["pairs"] / second["seconds"],
        },
        args.json,
    )


if __name__ == "__main__":
    main()
