"""`nightrank nightly --profile`: the trace of a whole night."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli.profile import profiled
from rerank_core.errors import ConfigError
from rerank_core.trace import span
from tests.support.tiny import Tiny

ROOT = Path(__file__).parents[3]
NIGHT = (
    '[source]\nlog = "good.jsonl"\nindex = "index"\n[tags]\nrecogniser = "rules"\n[output]\npath = "output"\n'
)
WORKERS = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


def spans(file: Path) -> list[dict[str, Any]]:
    return [event for event in json.loads(file.read_text())["traceEvents"] if event["ph"] == "X"]


def nightly(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A night of the shipped model over the tiny log."""
    (folder / "night.toml").write_text(NIGHT)
    command = ["nightly", "--config", "night.toml", "--run-date", "2026-03-08", "--quiet", *arguments]
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("workers", [(), ("--", *WORKERS)], ids=["in this process", "in two workers"])
def test_a_night_shows_its_steps_its_stages_and_the_batches_of_its_model(
    workers: tuple[str, ...], tiny: Tiny, tmp_path: Path
) -> None:
    shutil.copytree(tiny.folder, tmp_path / "night")
    done = nightly(tmp_path / "night", "--profile", "trace.json", *workers)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = spans(tmp_path / "night" / "trace.json")
    assert {
        "rerank",
        "prepare",
        "run graph",
        "FetchCandidates",
        "TagFeatures",
        "read passages",
        "ScoreCandidates",
        "tokenise",
        "run batch",
        "WriteReranked",
        "verify",
        "publish",
        "report",
    } <= {event["name"] for event in found}
    (graph,) = (event for event in found if event["name"] == "run graph")
    scored = [event for event in found if event["name"] == "ScoreCandidates"]
    for event in scored:
        assert graph["ts"] <= event["ts"] <= event["ts"] + event["dur"] <= graph["ts"] + graph["dur"]
    assert (graph["pid"] in {event["pid"] for event in scored}) == (not workers)
    (run,) = (tmp_path / "night" / "output" / "runs").glob("*/*")
    assert "trace" not in (run / "manifest.json").read_text()  # the same bytes with and without it


def test_a_night_that_fails_leaves_its_trace(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "night")
    (tmp_path / "night" / "good.jsonl").write_text("")
    assert nightly(tmp_path / "night", "--profile", "trace.json").returncode == 3
    assert [event["name"] for event in spans(tmp_path / "night" / "trace.json")][:2] == ["rerank", "prepare"]


def test_a_file_that_cannot_be_written_ends_the_call_before_the_night(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "night")
    done = nightly(tmp_path / "night", "--profile", "missing/trace.json")
    assert done.returncode == 2
    assert done.stderr == "error: --profile cannot write missing/trace.json (No such file or directory)\n"
    assert not (tmp_path / "night" / "output").exists()


def test_without_a_file_nothing_is_recorded_or_written(tmp_path: Path) -> None:
    with profiled(None), span("unseen"):
        pass
    with profiled(tmp_path / "trace.json"), span("seen"):
        pass
    assert [event["name"] for event in spans(tmp_path / "trace.json")] == ["seen"]
    with pytest.raises(ConfigError, match="Is a directory"), profiled(tmp_path):
        pass
