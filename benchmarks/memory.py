"""Peak memory of a night as the log grows, and as the texts of one shard grow.

    python -m benchmarks.memory [--quick] [--json FILE]

The log: 2,000 and 20,000 queries (`--quick`: 200 and 2,000) with 50 candidates each, over the bundled passages, with a
scorer that only looks at lengths, so everything but the model is measured.

The texts: one shard with the shipped model and recogniser, of 1 and of 5 million characters (`--quick`: 0.3 and 1.3):
in one document, in documents of 20,000 characters, in a document of commas alone, and in one line of the log. The
figures are the bytes that each further character costs, for the night and for the stage that it costs most.

Each night runs on the local runner, in a new process.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import SAMPLE, parser, peak_rss_mb, report, sample_config
from pipelines.nightly import sinks, stages, write_facts
from pipelines.nightly.run import run
from pipelines.nightly.shard_stage import Handled, ShardStage
from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import parse_config

CANDIDATES = 50
SHAPES = ("one", "many", "marks", "log")
USUAL = 20_000  # characters of a document of the shape "many"
DAY = datetime.date(2026, 3, 8)
STAGES: tuple[type[ShardStage], ...] = (
    stages.FetchCandidates,
    stages.TagFeatures,
    write_facts.PackFacts,
    stages.ReuseScores,
    stages.ScoreCandidates,
    stages.RankCandidates,
    stages.FindEvidence,
    sinks.WriteReranked,
    stages.MineHardNegatives,
    sinks.WriteHardNegatives,
)


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
        manifest = run(config, run_date=DAY, load=ConstantTime)
        seconds = time.perf_counter() - start
    return {
        "rss_mb": peak_rss_mb(),
        "pairs": manifest.balance.pairs["published"],
        "seconds": seconds,
    }


def shard_corpus(shape: str, characters: int) -> list[dict[str, str]]:
    """Documents of so many characters in all, beside a small one; each matches the query "zanzibar"."""
    texts = [json.loads(line)["text"] for line in (SAMPLE / "corpus.jsonl").open(encoding="utf-8")]
    draw = random.Random(5)

    def prose(size: int) -> str:
        parts = ["Zanzibar is here."]
        while sum(map(len, parts)) < size:
            parts.extend(draw.sample(texts, 20))
        return " ".join(parts)[:size]

    documents = {
        "one": lambda: [prose(characters)],
        "many": lambda: [prose(USUAL) for _ in range(characters // USUAL)],
        "marks": lambda: [f"Zanzibar {',' * characters}"],
        "log": list,
    }[shape]()
    return [
        {"_id": str(number), "title": f"Document {number}", "text": text}
        for number, text in enumerate([*documents, "Zanzibar in a few words."])
    ]


def one_shard(shape: str, characters: int) -> dict[str, float]:
    """Peak memory in MB of each stage and of the whole night, in this process."""
    peaks: dict[str, float] = {}
    for stage in STAGES:
        stage.handle = _measured(stage.handle, stage.__name__, peaks)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = [json.dumps(document) + "\n" for document in shard_corpus(shape, characters)]
        (folder / "corpus.jsonl").write_text("".join(corpus), encoding="utf-8")
        _forget_peak()
        build_index(folder / "corpus.jsonl", folder / "index")
        peaks["index"] = peak_rss_mb()
        event = {"timestamp": "2026-03-08T12:00:00Z", "query": "zanzibar", "user": "u", "clicks": ["0"]}
        log = [event, event | {"query": "a " * (characters // 2)}] if shape == "log" else [event]
        (folder / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in log), encoding="utf-8")
        raw: dict[str, Any] = {
            "source": {"log": str(folder / "log.jsonl"), "index": str(folder / "index")},
            "output": {"path": str(folder / "output"), "max_rejected_share": 0.9},
            "candidates": {"top_k": 1000},
        }
        if shape == "log":  # the recogniser's own memory would hide the log's
            raw["tags"] = {"recogniser": "rules"}
        _forget_peak()
        run(parse_config(raw), run_date=DAY)
        return peaks | {"night": max(peak_rss_mb(), *peaks.values())}


def _measured(
    handle: Callable[[Any, Any], Handled], name: str, peaks: dict[str, float]
) -> Callable[[Any, Any], Handled]:
    @functools.wraps(handle)
    def measured(stage: Any, shard: Any) -> Handled:
        _forget_peak()
        handled = handle(stage, shard)
        peaks[name] = peak_rss_mb()
        return handled

    return measured


def _forget_peak() -> None:
    """Let the peak of this process begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def in_a_process(*arguments: object) -> dict[str, float]:
    """A night in a new process, since its memory is not given back."""
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    night: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return night


def bytes_per_char(shape: str, small: int, large: int) -> dict[str, float]:
    """What each character beyond `small` costs, by stage, for the whole night as "night"."""
    first, second = (in_a_process("--shard", shape, size) for size in (small, large))
    return {name: (second[name] - first[name]) * 2**20 / (large - small) for name in first}


def measure(quick: bool) -> dict[str, float]:
    """The bytes that a further character of a shard costs: `rss_bytes_per_char`, and the same by shape and by stage.

    Each is the highest of the shapes. A figure near 0 means that the peak does not follow the text.
    """
    small, large = (300_000, 1_300_000) if quick else (1_000_000, 5_000_000)
    by_shape = {shape: bytes_per_char(shape, small, large) for shape in SHAPES}
    names = list(by_shape[SHAPES[0]])
    worst = {name: max(figures.get(name, 0.0) for figures in by_shape.values()) for name in names}
    return {
        "rss_bytes_per_char": worst.pop("night"),
        **{f"rss_bytes_per_char_{shape}": figures["night"] for shape, figures in by_shape.items()},
        **{f"rss_bytes_per_char_{name}": figure for name, figure in worst.items()},
    }


def measure_logs(quick: bool) -> dict[str, float]:
    """Peak memory of a small and of a large log, and the pairs that the large one's night ranks a second."""
    nights = []
    for queries in (200, 2_000) if quick else (2_000, 20_000):
        night = in_a_process("--night", queries)
        print(
            f"{queries:,} queries, {night['pairs']:,} pairs: {night['rss_mb']:,.0f} MB, {night['seconds']:,.0f} s"
        )
        nights.append(night)
    first, second = nights
    return {
        "rss_mb_small": first["rss_mb"],
        "rss_mb_large": second["rss_mb"],
        "rss_growth": second["rss_mb"] / first["rss_mb"],
        "job_pairs_per_second_without_model": second["pairs"] / second["seconds"],
    }


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--night", type=int, help=argparse.SUPPRESS)
    flags.add_argument("--shard", nargs=2, help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.night:
        print(json.dumps(one_night(args.night)))
    elif args.shard:
        print(json.dumps(one_shard(args.shard[0], int(args.shard[1]))))
    else:
        report(measure_logs(args.quick) | measure(args.quick), args.json)


if __name__ == "__main__":
    main()
