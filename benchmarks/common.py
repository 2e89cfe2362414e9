"""What every benchmark shares: its two flags, its table, and its JSON of flat names to numbers."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
from collections.abc import Sequence
from pathlib import Path

from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import Config, parse_config

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with `--quick` and `--json FILE`."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="a small version of the same work, under a minute")
    made.add_argument("--json", type=Path, metavar="FILE", help="write flat names to numbers here")
    return made


def report(figures: dict[str, float], to: Path | None) -> None:
    """Print the figures, and write them where asked."""
    print(f"\n{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for name, value in figures.items():
        print(f"{name:<42}{value:>14,.3f}")
    if to:
        to.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def sample_config(folder: Path, *, log: Path, output: str, **sections: dict[str, object]) -> Config:
    """A night over the bundled passages, indexed in `folder` the first time."""
    index = folder / "index"
    if not index.exists():
        build_index(SAMPLE, index)
    raw: dict[str, dict[str, object]] = {
        "source": {"log": str(log), "index": str(index)},
        "output": {"path": str(folder / output)},
    }
    for section, values in sections.items():
        raw[section] = raw.get(section, {}) | values
    return parse_config(raw)


def peak_rss_mb() -> float:
    """Largest resident set of this process so far, in MB.

    From the kernel's own mark where there is one: getrusage's is inherited from the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        marks = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0][1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
