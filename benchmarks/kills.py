"""Nights of all steps that are killed at random moments (kill -9), while readers poll what is published.

    python -m benchmarks.kills [--kills N] [--seed S] [--quick] [--json FILE]

Two nights are published, and a third one (tests/support/tiny_plan.py) is started in a process of its own: it reranks,
trains a tiny model, measures and promotes it, removes the oldest run and writes its report. By turns it is of a new
date and of a date that has a run already. It is killed at a random moment, and started again. Then every table, every
model, and what serves must equal, byte for byte, what an uninterrupted night leaves. Meanwhile three readers poll: one
reads every file of the run that `latest.json` names, one what the folder `reranked` lists, one the model that serves. A
read that shows neither the state before nor the one after is torn. A full run kills 50 nights, `--quick` 4.
"""

from __future__ import annotations

import hashlib
import json
import os
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

from benchmarks.common import parser, report
from pipelines.registry.resolve import local_model
from pipelines.registry.store import Registry
from pipelines.storage import runs
from schemas.tables import TABLES
from tests.support.tiny import DAY
from tests.support.tiny_plan import OLD, contents, make_plan

Content = dict[str, str]  # "table/file", or another place -> SHA-256
STEPS = ("rerank", "train", "evaluate", "promote", "clean_up", "report")


class Night(NamedTuple):
    """One night to start: its configuration file, its date, and what it leaves."""

    config: Path
    run_date: str
    after: Content  # everything
    served: Content
    listed: Content
    model: Content
    seconds: float


class Reader(threading.Thread):
    """Polls a folder until it is stopped; every read must be `allowed`."""

    def __init__(self, folder: Path, *, read: Callable[[Path], Content], allowed: Callable[[Content], bool]):
        super().__init__(daemon=True)
        self._folder, self._read, self._allowed = folder, read, allowed
        self._stopped = threading.Event()
        self.polls = 0
        self.torn: list[str] = []

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                if not self._allowed(self._read(self._folder)):
                    self.torn.append(f"{self._read.__name__}: another content")
            except Exception as error:  # whatever a reader would have seen
                self.torn.append(f"{self._read.__name__}: {type(error).__name__}: {error}")
            self.polls += 1
            time.sleep(0.002)

    def stop(self) -> None:
        """Stop polling, and wait for the last poll."""
        self._stopped.set()
        self.join()


def served_content(folder: Path) -> Content:
    """Checksums of all files of the run that the pointer names."""
    output = folder / "output"
    manifest = runs.open_run(str(output))
    return {
        f"{table}/{path.name}": _sha256(path)
        for table in TABLES
        for path in sorted((output / manifest.tables[table].path).glob("part-*.parquet"))
    }


def listed_content(folder: Path, *, tries: int = 5) -> Content:
    """Checksums of all files that the folder `reranked` lists; listed again if one has gone meanwhile."""
    try:  # around the listing, too: `glob` fails if a folder goes while it is listed
        paths = sorted((folder / "output" / "reranked").glob("*/*/part-*.parquet"))
        return {f"{path.parts[-3]}/{path.name}": _sha256(path) for path in paths}
    except FileNotFoundError:
        if not tries:
            raise
        return listed_content(folder, tries=tries - 1)


def model_content(folder: Path) -> Content:
    """Checksum of the weights of the model that serves, whose files are all checked; {} if none serves."""
    registry = Registry(str(folder / "models"))
    entry = registry.serving()
    return {"weights": _sha256(local_model(registry, entry) / "model.safetensors")} if entry else {}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _by_date(listed: Content) -> dict[str, Content]:
    dates: dict[str, Content] = {}
    for path, checksum in listed.items():
        dates.setdefault(path.partition("/")[0], {})[path] = checksum
    return dates


def allowed_listing(before: Content, after: Content) -> Callable[[Content], bool]:
    """Each date whole, as it was before or is after; dates come and go one by one."""
    one, other = _by_date(before), _by_date(after)

    def allowed(found: Content) -> bool:
        dates = _by_date(found)
        whole = all(content in (one.get(date), other.get(date)) for date, content in dates.items())
        return whole and set(dates) >= set(one) & set(other)

    return allowed


def night_command(config: Path, run_date: str) -> list[str]:
    command = ["nightly", "--config", str(config), "--run-date", run_date, "--quiet"]
    return [sys.executable, "-m", "pipelines.cli", *command]


def start(config: Path, run_date: str) -> subprocess.Popen[bytes]:
    """Start a night in a process of its own, on one thread."""
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(night_command(config, run_date), stderr=subprocess.PIPE, env=variables)


def finish(config: Path, run_date: str) -> None:
    """Run a night to its end."""
    process = start(config, run_date)
    _, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"a night ended with {process.returncode}: {err.decode()}")


def prepare(folder: Path) -> tuple[Path, list[Night]]:
    """Make the world before the nights, and each night undisturbed.

    Returns:
        The world, to be copied to `folder`/night, and the nights.
    """
    beginning, world = folder / "beginning", folder / "night"
    world.mkdir()
    config = make_plan(world)
    same_date = world / "same_date.toml"
    text = config.read_text().replace(
        "top_k = 6", "top_k = 8"
    )  # so that its run differs from the one that is there
    same_date.write_text(text.replace('["sunday"]', f'["{OLD[1]:%A}"]'.lower()))
    world.rename(beginning)
    nights = []
    for path, day in ((config, DAY), (same_date, OLD[1])):
        shutil.copytree(beginning, world)
        started = time.monotonic()
        finish(path, str(day))
        seconds = time.monotonic() - started
        found = [read(world) for read in (contents, served_content, listed_content, model_content)]
        nights.append(Night(path, str(day), *found, seconds))
        _check_steps(world, str(day))
        shutil.rmtree(world)
    return beginning, nights


def _check_steps(world: Path, day: str) -> None:
    record = json.loads((world / "output" / "_plan" / f"run_date={day}.json").read_text())
    done = [step["name"] for step in record["steps"] if step["state"] == "done"]
    if done != list(STEPS):
        raise SystemExit(f"the night of {day} did only {', '.join(done)}")


def kill_one(beginning: Path, night: Night, *, after: float) -> dict[str, Any]:
    """Start a night in the world before it, kill it after so many seconds, and start it again."""
    world = beginning.parent / "night"
    shutil.copytree(beginning, world)
    served, listed, model = served_content(world), listed_content(world), model_content(world)
    readers = [
        Reader(world, read=served_content, allowed=lambda found: found in (served, night.served)),
        Reader(world, read=listed_content, allowed=allowed_listing(listed, night.listed)),
        Reader(world, read=model_content, allowed=lambda found: found in (model, night.model)),
    ]
    for reader in readers:
        reader.start()
    process = start(night.config, night.run_date)
    killed = False
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed = True
    before_publishing = killed and served_content(world) == served
    finish(night.config, night.run_date)
    for reader in readers:
        reader.stop()
    found = contents(world)
    result = {
        "killed": killed,
        "before_publishing": before_publishing,
        "equal": found == night.after and listed_content(world) == night.listed,
        "different": sorted(k for k in found | night.after if found.get(k) != night.after.get(k))[:5],
        "polls": sum(reader.polls for reader in readers),
        "torn": [torn for reader in readers for torn in reader.torn],
    }
    shutil.rmtree(world)
    return result


def measure(kills: int, *, seed: int = 7) -> dict[str, float]:
    """Kill so many nights at random moments between their start and their end."""
    draw = random.Random(seed)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        beginning, nights = prepare(Path(folder))
        while sum(result["killed"] for result in results) < kills:
            night = nights[len(results) % len(nights)]
            after = draw.uniform(0.2, night.seconds)
            results.append(kill_one(beginning, night, after=after))
            said = json.dumps(results[-1])[:400]
            print(f"{night.run_date}, killed after {after:.1f} of {night.seconds:.1f} s: {said}", flush=True)
    killed = [result for result in results if result["killed"]]
    return {
        "kills": len(killed),
        "crash_equal": sum(result["equal"] for result in killed),
        "kills_before_publishing": sum(result["before_publishing"] for result in killed),
        "reads": sum(result["polls"] for result in results),
        "torn_reads": sum(len(result["torn"]) for result in results),
    }


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--kills", type=int, default=None, help="nights to kill; default: 50, with --quick 4")
    flags.add_argument("--seed", type=int, default=7, help="of the random moments")
    args = flags.parse_args()
    figures = measure(args.kills or (4 if args.quick else 50), seed=args.seed)
    report(figures, args.json)
    if figures["crash_equal"] < figures["kills"] or figures["torn_reads"]:
        raise SystemExit("a killed night was not made up for, or a reader saw what was never published")


if __name__ == "__main__":
    main()
