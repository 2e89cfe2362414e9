"""The overhead of the job: pairs per second of whole nights, and of the bare scorer on the same inputs.

    python -m benchmarks.pipeline_overhead [--quick] [--json FILE]

A night is everything from reading the log to the published run, with start-up and the loading of the model; the bare
scorer is loaded before and gets all inputs of that night at once, already rendered. The two take turns, so that a
machine that slows down slows both; the figures are medians. Then a second night over unchanged input. With `--quick`
start-up has more weight, so quote the share of a full run. Of a bi-encoder the inputs are its texts, and the bundled
sample has few: `benchmarks.host` has what the job costs for each pair.
"""

from __future__ import annotations

import datetime
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.common import SAMPLE, forget, median, parser, report, sample_config
from pipelines.nightly.run import run
from pipelines.storage import runs
from rerank_core.config.night import Config
from rerank_core.features.render import passage_text, render
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import reads_tags
from schemas.manifest import Manifest
from schemas.tags import Tags

RUN_DATE = datetime.date(2026, 3, 8)


def model_inputs(config: Config, manifest: Manifest, *, tagged: bool) -> list[tuple[str, str]]:
    """The distinct inputs that the night scored, rendered again from the published rows."""
    inputs: dict[str, tuple[str, str]] = {}
    for path in runs.table_files(config.output.path, manifest, "reranked"):
        for row in pq.read_table(path).to_pylist():
            tags = Tags.from_row(row) if tagged else None
            passage = passage_text(row["title"], row["text"])
            inputs[row["input_fingerprint"]] = tuple(render(row["query"], passage, tags))
    return list(inputs.values())


def main() -> None:
    args = parser(__doc__ or "").parse_args()
    top_k, rounds = (12, 1) if args.quick else (50, 2)
    scorer = load_scorer()
    job, bare, second = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            config = sample_config(
                Path(folder),
                log=SAMPLE / "query_log.jsonl",
                output=f"night{turn}",
                candidates={"top_k": top_k},
                evidence={"top_n": 0},  # it would score inputs that the bare scorer does not get
            )
            start = time.perf_counter()
            manifest = run(config, run_date=RUN_DATE)
            night_seconds = time.perf_counter() - start
            inputs = model_inputs(config, manifest, tagged=reads_tags(scorer, config.tags))
            forget(scorer)
            start = time.perf_counter()
            scorer.score(inputs)
            bare_seconds = time.perf_counter() - start
            start = time.perf_counter()
            again = run(config, run_date=RUN_DATE)
            second.append(night_seconds / (time.perf_counter() - start))
            if again.balance.pairs["reused"] != manifest.balance.pairs["read"]:
                raise SystemExit(
                    f"the second night did not reuse all scores of the first: {again.balance.pairs}"
                )
            job.append(len(inputs) / night_seconds)
            bare.append(len(inputs) / bare_seconds)
            print(
                f"round {turn + 1}: {len(inputs):,} inputs, job {job[-1]:,.0f}/s, bare {bare[-1]:,.0f}/s, "
                f"second night {second[-1]:.1f} times faster"
            )
    report(
        {
            "job_pairs_per_second": median(job),
            "bare_scorer_pairs_per_second": median(bare),
            "job_share_of_bare_scorer": median([a / b for a, b in zip(job, bare, strict=True)]),
            "second_night_speedup": median(second),
        },
        args.json,
    )


if __name__ == "__main__":
    main()
