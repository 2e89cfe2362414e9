"""The same night on one machine and on engines: are its files the same, and what does an engine cost?

    python -m benchmarks.flink [--data DIR] [--without NAME...] [--quick] [--json FILE]

A night with the bundled model over HotpotQA's dev questions (folder `hotpotqa` of --data), 20 candidates each; without
--data, and with `--quick`, over the bundled passages. It runs on this machine; on Flink with one TaskManager of two
slots and the Python stages in this process (LOOPBACK); on Flink with two TaskManagers, each with its own worker;
there again, while one of them is killed with -9 after the first file is written; and on Spark. All servers are
processes of this machine, so the seconds show an engine's overhead, not what it is for.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import SAMPLE, parser, report
from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import Config, parse_config
from schemas.manifest import Manifest
from tests.support.engine_nights import with_a_kill
from tests.support.servers.flink import Cluster
from tests.support.servers.spark import Spark
from tests.support.tiny import published_bytes

DAY = datetime.date(2026, 3, 8)
ENGINES = ("loopback", "process", "killed", "spark")
EQUAL = {
    "flink_equal": ("loopback", "process"),
    "flink_killed_equal": ("killed",),
    "spark_equal": ("spark",),
}
"""Figures that are 1 if every one of these nights published the files of one machine."""


class Nights:
    """The nights of one corpus and log, each into a folder of its own.

    Args:
        folder: for everything.
        source: a judged set in BEIR's layout.
        queries: how many of its dev questions the log asks; 0: all.
        top_k: candidates of each.
    """

    def __init__(self, folder: Path, source: Path, *, queries: int, top_k: int) -> None:
        self._folder, self._top_k = folder, top_k
        self.seconds: dict[str, float] = {}
        self.published: dict[str, dict[str, bytes]] = {}
        self._index = folder / "index"
        build_index(source, self._index)
        lines = (source / "queries.jsonl").read_text(encoding="utf-8").splitlines()
        asked = [one for one in map(json.loads, lines) if one.get("split", "dev") == "dev"][: queries or None]
        self._log = folder / "log.jsonl"
        self._log.write_text(
            "".join(
                json.dumps({"timestamp": f"{DAY}T10:00:00Z", "query": one["text"], "user": one["_id"]}) + "\n"
                for one in asked
            )
        )

    def config(self, name: str) -> Config:
        """The configuration of one night."""
        return parse_config(
            {
                "source": {"log": str(self._log), "index": str(self._index)},
                "candidates": {"top_k": self._top_k},
                "output": {"path": str(self._folder / name), "queries_per_shard": 8},
            }
        )

    def run(self, name: str, flags: list[str]) -> Manifest:
        """Run one night, and keep its time and its files."""
        started = time.perf_counter()
        manifest = run(self.config(name), run_date=DAY, beam_flags=flags)
        self.seconds[name] = time.perf_counter() - started
        self.published[name] = published_bytes(self._folder / name, manifest)
        print(f"{name:<10}{self.seconds[name]:>8.1f} s, {len(self.published[name])} files", flush=True)
        return manifest

    def written(self, name: str) -> int:
        """Files of `reranked` that a night which runs has written so far."""
        return len(list((self._folder / name / "_staging").glob("*/reranked/part-*.parquet")))


def killed_night(cluster: Cluster, nights: Nights) -> dict[str, float]:
    """A night that loses a TaskManager after the first of its files is written."""
    written: list[int] = []

    def due() -> list[int]:
        if not (done := nights.written("killed")):
            return []
        written.append(done)
        return list(cluster.workers())

    _, reaped = with_a_kill(cluster, lambda: nights.run("killed", cluster.process), when=due)
    shards = sum("/reranked/" in f"/{name}" for name in nights.published["killed"])
    return {"flink_killed_at_share": written[-1] / shards, "flink_worker_reaped": float(reaped)}


def measure(source: Path, *, queries: int, top_k: int, engines: tuple[str, ...]) -> dict[str, float]:
    """Run the nights, and compare them."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        nights = Nights(Path(scratch), source, queries=queries, top_k=top_k)
        manifest = nights.run("one", [])
        with flink(engines) as cluster:
            if "loopback" in engines:
                nights.run("loopback", cluster().loopback)
            if {"process", "killed"} & set(engines):
                cluster().resize(task_managers=2, slots=1)
            if "process" in engines:
                nights.run("process", cluster().process)
            if "killed" in engines:
                figures |= killed_night(cluster(), nights)
        if "spark" in engines:
            with Spark() as spark:
                nights.run("spark", spark.loopback)
        figures |= {f"{name}_seconds": seconds for name, seconds in nights.seconds.items()}
        figures |= {"files": len(nights.published["one"]), "pairs": manifest.balance.pairs["read"]}
        for figure, names in EQUAL.items():
            if ran := [name for name in names if name in nights.published]:
                same = all(nights.published[name] == nights.published["one"] for name in ran)
                figures[figure] = float(same)
    return figures


@contextmanager
def flink(engines: tuple[str, ...]) -> Iterator[Callable[[], Cluster]]:
    """A running cluster with one TaskManager, if one is needed."""
    if set(engines) <= {"spark"}:
        yield Cluster
        return
    with Cluster(task_managers=1, slots=2) as cluster:
        yield lambda: cluster


def arguments() -> argparse.Namespace:
    flags = parser(__doc__ or "")
    flags.add_argument("--without", nargs="+", choices=ENGINES, default=[], help="nights to leave out")
    data = os.environ.get("NIGHTRANK_DATA")
    flags.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        default=data and Path(data),
        help="folder of the judged sets, see docs/benchmarks/data.md; default: $NIGHTRANK_DATA, or bundled passages",
    )
    return flags.parse_args()


def main() -> None:
    args = arguments()
    small = args.quick or not args.data
    figures = measure(
        SAMPLE if small else args.data / "hotpotqa",
        queries=24 if args.quick else 0,
        top_k=6 if args.quick else 20,
        engines=tuple(name for name in ENGINES if name not in args.without),
    )
    report(figures, args.json)
    if wrong := [name for name in EQUAL if figures.get(name, 1.0) < 1.0]:
        raise SystemExit(f"not the files of one machine: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
