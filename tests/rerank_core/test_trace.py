"""Spans: what a trace says of the threads and processes that it was taken of."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rerank_core import trace
from rerank_core.trace import FOLDER, join, recording, span


def spans(folder: Path) -> dict[str, dict[str, Any]]:
    """The spans of a trace by their names."""
    return {event["name"]: event for event in join(folder)["traceEvents"] if event["ph"] == "X"}


def test_spans_are_nested_and_know_their_thread_and_what_they_waited(tmp_path: Path) -> None:
    def wait() -> None:
        with span("wait", rows=3):
            time.sleep(0.05)

    with recording(tmp_path):
        other = threading.Thread(target=wait, name="other")
        with span("outer"), span("inner"):
            other.start()
            other.join()
    found = spans(tmp_path)
    outer, inner, waited = found["outer"], found["inner"], found["wait"]
    assert outer["ts"] <= inner["ts"]
    assert inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]
    assert waited["args"] == {"rows": 3}
    assert waited["dur"] >= 50_000 > 10 * waited["tdur"]  # microseconds; a sleep takes no processor time
    assert outer["tid"] == inner["tid"] != waited["tid"]
    names = {e["tid"]: e["args"]["name"] for e in join(tmp_path)["traceEvents"] if e["ph"] == "M"}
    assert names[waited["tid"]] == "other"


def test_nothing_is_recorded_unless_asked(tmp_path: Path) -> None:
    before = threading.active_count()
    with span("before"):
        assert threading.active_count() == before
    with recording(tmp_path), span("during"):
        pass
    with span("after"):
        pass
    assert set(spans(tmp_path)) == {"during"}
    assert FOLDER not in os.environ


def test_processes_that_are_started_meanwhile_are_in_the_trace(tmp_path: Path) -> None:
    code = "from rerank_core.trace import span\nwith span('child'): pass"
    with recording(tmp_path), span("parent"):
        subprocess.run([sys.executable, "-c", code], check=True)
    found = spans(tmp_path)
    assert found["child"]["pid"] != found["parent"]["pid"] == os.getpid()
    assert found["parent"]["ts"] == 0 < found["child"]["ts"]  # in the order of time, from the first event on


def test_the_body_fails_as_it_would_and_is_recorded(tmp_path: Path) -> None:
    failed = ""
    try:
        with recording(tmp_path), span("fails"):
            raise ValueError("as it would")
    except ValueError as error:
        failed = str(error)
    assert failed == "as it would"
    assert set(spans(tmp_path)) == {"fails"}


def test_processor_and_memory_are_measured(tmp_path: Path) -> None:
    with recording(tmp_path), span("busy"):
        end = time.monotonic() + 5 * trace.EVERY_SECONDS
        while time.monotonic() < end:
            pass
    figures: dict[str, list[float]] = {}
    for event in join(tmp_path)["traceEvents"]:
        if event["ph"] == "C":
            figures.setdefault(event["name"], []).append(event["args"]["value"])
    assert max(figures["processor cores"]) > 0.1
    if Path("/proc/self/statm").exists():
        assert min(figures["memory MB"]) > 10


def test_the_torn_line_of_a_killed_process_is_left_out(tmp_path: Path) -> None:
    with recording(tmp_path), span("whole"):
        pass
    with next(tmp_path.glob("*.jsonl")).open("a") as file:
        file.write('{"ph": "X", "na')
    assert set(spans(tmp_path)) == {"whole"}


def test_a_folder_that_cannot_be_written_to_ends_nothing(tmp_path: Path) -> None:
    with recording(tmp_path / "missing"), span("unseen"):
        pass
    assert join(tmp_path / "missing") == {"traceEvents": [], "displayTimeUnit": "ms"}
