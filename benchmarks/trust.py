"""What a night's owner has to be able to trust: models, readers, masks, memory and kills, in one run.

    python -m benchmarks.trust [--quick] [--without NAME...] [--json FILE]

Each part is a benchmark of its own with the same figures; this one runs them in turn and adds the time of `make test`
(not with `--quick`). A figure that is not as it must be ends the run with exit code 1, after all parts have run.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import conformance, kills, masks, memory, readers
from benchmarks.common import run_parts

ROOT = Path(__file__).resolve().parent.parent
Figures = dict[str, float]


def killed_nights(quick: bool) -> Figures:
    return kills.measure(4 if quick else 50)


def make_test(quick: bool) -> Figures:
    """Seconds of `make test` in this checkout, whose environment is installed already."""
    if quick:
        return {}
    started = time.monotonic()
    subprocess.run(["make", "test"], cwd=ROOT, check=True)
    return {"make_test_seconds": time.monotonic() - started}


PARTS: dict[str, Callable[[bool], Figures]] = {
    "masks": masks.measure,
    "readers": readers.measure,
    "memory": memory.measure,
    "conformance": conformance.measure,
    "kills": killed_nights,
    "make-test": make_test,
}


def failures(figures: Figures) -> list[str]:
    """The names of the figures that are not as they must be."""
    wanted = {
        "conformance_failures": figures.get("conformance_failures", 0) == 0,
        "reader_failures": figures.get("reader_failures", 0) == 0,
        "torn_reads": figures.get("torn_reads", 0) == 0,
        "crash_equal": figures.get("crash_equal", 0) == figures.get("kills", 0),
        "mask_precision": figures.get("mask_precision", 1) > 0.95,
        "mask_recall": figures.get("mask_recall", 1) > 0.95,
        "rss_bytes_per_char": figures.get("rss_bytes_per_char", 0) < 100,
    }
    return [name for name, right in wanted.items() if not right]


if __name__ == "__main__":
    run_parts(PARTS, failures, description=__doc__ or "")
