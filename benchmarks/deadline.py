"""Nights with a deadline, and models of several speeds: is it kept, and what is fresh by then?

    python -m benchmarks.deadline [--queries N] [--seconds S] [--quick] [--json FILE]

A first night is published over the bundled passages, with N queries whose frequencies fall as in real logs. Then one
night a model is started in a process of its own, each with a finish_by that leaves S seconds more than the first night
took: with a fast model, with one that needs ten times those, and with one that blocks for ever in a thread of its own;
the last two in two worker processes, too. The error is the time from finish_by to the end of the process.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.common import SAMPLE, parser, report, sample_config
from pipelines.nightly.deadline import BASE_SECONDS, SECONDS_PER_ROW
from pipelines.nightly.run import run
from pipelines.storage import runs
from pipelines.storage.filesystem import read_table
from schemas.manifest import Manifest

TOP_K = 50
FIRST, NEXT = datetime.date(2026, 3, 8), datetime.date(2026, 3, 9)
TWO = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
MODELS: dict[str, tuple[float, tuple[str, ...]]] = {
    "fast": (0.0, ()),
    "slow": (10.0, ()),
    "slow_two_workers": (20.0, TWO),
    "blocking": (-1.0, ()),
    "blocking_two_workers": (-1.0, TWO),
}
"""By name: how often the time that is left the model needs in one process (below 0: it never returns), Beam's flags."""


class Throttled:
    """A logit from a hash, after so many seconds a pair.

    Args:
        name: goes into the fingerprint.
        seconds: for each pair; below 0, the second call never returns.
    """

    chunk = 64

    def __init__(self, name: str, seconds: float) -> None:
        self.fingerprint = f"throttled {name}"
        self._seconds, self._calls, self._pool = seconds, 0, ThreadPoolExecutor(1)

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """One float32 logit per pair."""
        return self._pool.submit(self._score, pairs).result()

    def _score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self._calls += 1
        if self._seconds < 0 and self._calls > 1:
            threading.Event().wait()
        time.sleep(max(0.0, self._seconds) * len(pairs))
        return np.array([zlib.crc32(repr(pair).encode()) / 2**32 for pair in pairs], np.float32)


def write_log(path: Path, queries: int) -> None:
    """A log of so many queries, made of the bundled passages' words; the n-th is asked some N/n times."""
    lines = (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    words = sorted({word for line in lines for word in json.loads(line)["text"].split() if word.isalpha()})
    draw = random.Random(7)
    with path.open("w", encoding="utf-8") as log:
        for n in range(queries):
            text = " ".join(draw.sample(words, 3))
            at = {"timestamp": "2026-03-05T10:00:00Z", "user": "u", "clicks": [], "impressions": []}
            log.write((json.dumps({"query": text, **at}) + "\n") * max(1, queries // 10 // (n + 1)))


def night(folder: Path, model: str, *, seconds: float, flags: Sequence[str], finish_by: str) -> None:
    """Run one night in this process; without `finish_by`, the one that comes before."""
    config = sample_config(
        folder,
        log=folder / "log.jsonl",
        output="output",
        candidates={"top_k": TOP_K},
        tags={"recogniser": "rules"},
        evidence={"top_n": 0},
        reuse={"enabled": False},
        drift={"enabled": False},
    )
    smaller = dataclasses.replace(config.output, queries_per_shard=50)
    limit = datetime.datetime.fromisoformat(finish_by) if finish_by else None
    load = functools.partial(Throttled, model, seconds)
    run(
        dataclasses.replace(config, output=smaller),
        run_date=NEXT if limit else FIRST,
        load=load,
        beam_flags=flags,
        finish_by=limit,
    )


def measure(queries: int, seconds: float) -> dict[str, float]:
    """Figures of a night with each model."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder / "log.jsonl", queries)
        started = time.monotonic()
        _start(folder, "fast", a_pair=0.0, finish_by="")
        given = time.monotonic() - started + BASE_SECONDS + SECONDS_PER_ROW * queries * TOP_K + seconds
        pairs = runs.open_run(str(folder / "output")).balance.pairs["read"]
        (folder / "output").rename(folder / "published")
        for model, (times, _) in MODELS.items():
            shutil.copytree(folder / "published", folder / "output")
            for figure, value in _one(folder, model, given=given, a_pair=seconds * times / pairs).items():
                figures[f"{figure}_{model}"] = value
            shutil.rmtree(folder / "output")
    errors = [value for figure, value in figures.items() if figure.startswith("error_s")]
    return {"deadline_error_s": max(errors), **figures}


def _one(folder: Path, model: str, *, given: float, a_pair: float) -> dict[str, float]:
    limit = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=given)
    _start(folder, model, a_pair=a_pair, finish_by=limit.isoformat())
    error = (datetime.datetime.now(datetime.UTC) - limit).total_seconds()
    manifest = runs.open_run(str(folder / "output"))
    print(
        f"{model}: {error:+.1f} s, {manifest.balance.queries}, {manifest.degraded.get('deadline', '')}",
        flush=True,
    )
    return {
        "error_s": error,
        "fresh_queries": manifest.balance.queries["published"] / manifest.balance.queries["read"],
        "fresh_searches": _fresh_searches(str(folder / "output"), manifest),
    }


def _start(folder: Path, model: str, *, a_pair: float, finish_by: str) -> None:
    """Run a night in a process of its own, and wait until that has ended."""
    command = [sys.executable, "-m", "benchmarks.deadline", "--night", model, "--in", str(folder)]
    command += ["--pair", str(a_pair), "--by", finish_by]
    done = subprocess.run(
        command, stderr=subprocess.PIPE, text=True
    )  # Beam logs every worker's start and end
    if done.returncode:
        raise SystemExit(f"the night of the model {model!r} failed: {done.stderr[-3000:]}")


def _fresh_searches(output: str, manifest: Manifest) -> float:
    """Share of the searches whose query has a fresh list."""
    total = fresh = 0
    for path in runs.table_files(output, manifest, "queries"):
        for row in read_table(path, ["count", "stale_since"]).to_pylist():
            total += row["count"]
            fresh += row["count"] * (row["stale_since"] is None)
    return fresh / total


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--queries", type=int, default=None, help="default: 2,000; with --quick 300")
    flags.add_argument("--seconds", type=float, default=None, help="for scoring; default: 30, with --quick 5")
    for hidden in ("--night", "--in", "--by", "--pair"):  # of the processes that it starts
        flags.add_argument(hidden, help=argparse.SUPPRESS, default="")
    args = vars(flags.parse_args())
    if args["night"]:
        beam = MODELS[args["night"]][1]
        pair = float(args["pair"])
        night(Path(args["in"]), args["night"], seconds=pair, flags=beam, finish_by=args["by"])
        return
    quick = args["quick"]
    queries, seconds = (
        args["queries"] or (300 if quick else 2000),
        args["seconds"] or (5.0 if quick else 30.0),
    )
    figures = measure(queries, seconds)
    report(figures, args["json"])
    if figures["deadline_error_s"] > 60:
        raise SystemExit("a night was more than a minute late")


if __name__ == "__main__":
    main()
