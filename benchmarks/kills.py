"""Nights that are killed at random moments (kill -9), while readers poll what is published.

    python -m benchmarks.kills [--kills N] [--seed S] [--quick] [--json FILE]

A first night is published. Then a second night, of the next date or of the same date by turns, is started in a process
of its own and killed at a random moment; where it had not been published yet, it is started again and left to finish.
Its files must equal, byte for byte, those of an uninterrupted night. Meanwhile two readers poll: one reads every
file of the run that the pointer names, the other lists the folder `reranked` and reads what is there. A read that
shows neither the state before nor the one after is torn. A full run kills 50 nights, `--quick` 4.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import SAMPLE, parser, report
from pipelines.sources.local.bm25_index import build_index
from pipelines.storage import runs
from schemas.tables import TABLES

FIRST, NEXT = "2026-03-07", "2026-03-08"
TOP_K = {"first": 6, "second": 8}  # so that the second night differs, also where it is of the same date
EVENTS = 150

Content = dict[str, str]  # "table/file" -> SHA-256


class Night(NamedTuple):
    """One night to start: its configuration file, its date, and what it must publish and list."""

    config: Path
    run_date: str
    content: Content
    listed: Content


class Reader(threading.Thread):
    """Polls an output folder until it is stopped; every read must be one of the `allowed` contents."""

    def __init__(self, output: Path, *, read: Callable[[Path], Content], allowed: list[Content]):
        super().__init__(daemon=True)
        self._output, self._read, self._allowed = output, read, allowed
        self._stopped = threading.Event()
        self.polls = 0
        self.torn: list[str] = []

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                if self._read(self._output) not in self._allowed:
                    self.torn.append("another content")
            except Exception as error:  # whatever a reader would have seen
                self.torn.append(f"{type(error).__name__}: {error}")
            self.polls += 1
            time.sleep(0.002)

    def stop(self) -> None:
        """Stop polling, and wait for the last poll."""
        self._stopped.set()
        self.join()


def served_content(output: Path) -> Content:
    """Checksums of all files of the run that the pointer names."""
    manifest = runs.open_run(str(output))
    return {
        f"{table}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for table in TABLES
        for path in sorted((output / manifest.tables[table].path).glob("part-*.parquet"))
    }


def listed_content(output: Path, *, tries: int = 5) -> Content:
    """Checksums of all files that the folder `reranked` lists, by date; listed again if one has gone meanwhile."""
    paths = sorted((output / "reranked").glob("*/*/part-*.parquet"))
    try:
        return {
            f"{path.parts[-3]}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
        }
    except FileNotFoundError:
        if not tries:
            raise
        return listed_content(output, tries=tries - 1)


def write_config(folder: Path, which: str) -> Path:
    """A small night over the bundled sample; the output folder is named relative to it."""
    path = folder / f"{which}.toml"
    path.write_text(
        f'[source]\nlog = "log.jsonl"\nindex = "index"\n[candidates]\ntop_k = {TOP_K[which]}\n'
        '[output]\npath = "output"\nqueries_per_shard = 10\n'
    )
    return path


def night_command(config: Path, run_date: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "pipelines.cli",
        "nightly",
        "--config",
        str(config),
        "--run-date",
        run_date,
        "--quiet",
    ]


def prepare(folder: Path) -> tuple[Path, list[Night], float]:
    """Publish the first night and, undisturbed, each second one.

    Returns:
        The output folder with the first night alone, the second nights, and the seconds that one takes.
    """
    build_index(SAMPLE, folder / "index")
    lines = (SAMPLE / "query_log.jsonl").read_text().splitlines(keepends=True)
    (folder / "log.jsonl").write_text("".join(lines[:EVENTS]))
    first, second = write_config(folder, "first"), write_config(folder, "second")
    subprocess.run(night_command(first, FIRST), check=True)
    published, output = folder / "published", folder / "output"
    output.rename(published)
    nights = []
    for run_date in (NEXT, FIRST):
        shutil.copytree(published, output)
        started = time.monotonic()
        subprocess.run(night_command(second, run_date), check=True)
        seconds = time.monotonic() - started
        nights.append(Night(second, run_date, served_content(output), listed_content(output)))
        shutil.rmtree(output)
    return published, nights, seconds


def kill_one(published: Path, night: Night, *, after: float) -> dict[str, Any]:
    """Start a night on a copy of what is published, kill it after so many seconds, and make up for it."""
    output = published.parent / "output"
    shutil.copytree(published, output)
    served, listed = served_content(output), listed_content(output)
    readers = [
        Reader(output, read=served_content, allowed=[served, night.content]),
        Reader(output, read=listed_content, allowed=[listed, night.listed]),
    ]
    for reader in readers:
        reader.start()
    process = subprocess.Popen(night_command(night.config, night.run_date), stderr=subprocess.PIPE)
    try:
        process.wait(timeout=after)
        killed = False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        killed = True
    process.communicate()
    interrupted = served_content(output) == served
    if interrupted:
        subprocess.run(night_command(night.config, night.run_date), check=True)
    for reader in readers:
        reader.stop()
    equal = served_content(output) == night.content and listed_content(output) == night.listed
    shutil.rmtree(output)
    return {
        "killed": killed,
        "interrupted": interrupted,
        "equal": equal,
        "polls": sum(reader.polls for reader in readers),
        "torn": [torn for reader in readers for torn in reader.torn],
    }


def measure(kills: int, *, seed: int = 7) -> dict[str, float]:
    """Kill so many nights at random moments between their start and their end."""
    draw = random.Random(seed)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        published, nights, seconds = prepare(Path(folder))
        while sum(result["killed"] for result in results) < kills:
            night = nights[len(results) % len(nights)]
            after = draw.uniform(0.2, seconds)
            results.append(kill_one(published, night, after=after))
            print(
                f"{night.run_date}, killed after {after:.1f} s: {json.dumps(results[-1])[:300]}", flush=True
            )
    killed = [result for result in results if result["killed"]]
    return {
        "kills": len(killed),
        "kills_byte_equal": sum(result["equal"] for result in killed),
        "kills_before_publishing": sum(result["interrupted"] for result in killed),
        "reader_polls": sum(result["polls"] for result in results),
        "reader_torn": sum(len(result["torn"]) for result in results),
    }


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--kills", type=int, default=None, help="nights to kill; default: 50, with --quick 4")
    flags.add_argument("--seed", type=int, default=7, help="of the random moments")
    args = flags.parse_args()
    figures = measure(args.kills or (4 if args.quick else 50), seed=args.seed)
    report(figures, args.json)
    if figures["kills_byte_equal"] < figures["kills"] or figures["reader_torn"]:
        raise SystemExit("a killed night was not made up for, or a reader saw a run that was never published")


if __name__ == "__main__":
    main()
