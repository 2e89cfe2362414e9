"""What a night costs beside its model: pairs per second with a scorer that takes no time.

    python -m benchmarks.host [--quick] [--json FILE]

2,000 queries (`--quick`: 300) of thirty words, each with 50 candidates among the bundled passages, on two workers of
the local runner. Each night begins when its configuration is read, and ends when it is published; packages are imported
before.

- first_pairs_per_second: a first night, which reads every passage for its tags.
- host_pairs_per_second: another model over the same passages: what they say is known, and all pairs are scored.
- reuse_pairs_per_second: the same night again, which scores nothing.
- us_per_pair_STAGE: what each stage takes in the night that scores, in microseconds a pair, summed over the workers.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.common import parser, report, sample_config
from benchmarks.memory import CANDIDATES, DAY, ConstantTime, write_log
from pipelines.nightly.run import run
from schemas.manifest import Manifest

WORKERS = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


class Other(ConstantTime):
    """The same speed under another identity, so that no score is reused."""

    fingerprint = "constant-time-2"


def night(folder: Path, scorer: type[ConstantTime]) -> tuple[Manifest, float]:
    """A night, and the pairs that it published in a second."""
    config = sample_config(
        folder,
        log=folder / "log.jsonl",
        output="out",
        candidates={"top_k": CANDIDATES},
        drift={"enabled": False},
    )
    start = time.perf_counter()
    manifest = run(config, run_date=DAY, load=scorer, beam_flags=WORKERS)
    seconds = time.perf_counter() - start
    pairs = manifest.balance.pairs
    return manifest, (pairs["published"] + pairs["reused"]) / seconds


def main() -> None:
    args = parser(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder / "log.jsonl", 300 if args.quick else 2_000)
        _, first = night(folder, ConstantTime)
        scored, host = night(folder, Other)
        reused, reuse = night(folder, Other)
    if scored.balance.pairs["reused"] or reused.balance.pairs["published"]:
        raise SystemExit(f"not the nights that were meant: {scored.balance.pairs}, {reused.balance.pairs}")
    pairs = scored.balance.pairs["published"]
    seconds = {stage: tally["seconds"] for stage, tally in scored.stages.items() if "seconds" in tally}
    report(
        {
            "pairs": pairs,
            "first_pairs_per_second": first,
            "host_pairs_per_second": host,
            "reuse_pairs_per_second": reuse,
            **{f"us_per_pair_{stage}": 1e6 * spent / pairs for stage, spent in seconds.items()},
        },
        args.json,
    )


if __name__ == "__main__":
    main()
