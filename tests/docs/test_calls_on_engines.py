"""Calls of a night on an engine in docs/runners.md: Beam knows their flags, and workers have what they need."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from pipelines.beam_options import beam_options
from pipelines.nightly.remote import check_remote
from rerank_core.config.night import load_config
from tests.support.google_clients import client

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "runners.md").read_text(encoding="utf-8")
CALLS = re.findall(r"^    (nightrank nightly .*)$", PAGE, re.MULTILINE)


def flags(call: str) -> list[str]:
    words = shlex.split(call)
    return words[words.index("--") + 1 :] if "--" in words else []


@pytest.mark.parametrize("call", [call for call in CALLS if "..." not in call])
def test_beam_knows_the_flags(call: str) -> None:
    beam_options(flags(call))  # raises for an unknown one


def test_the_call_on_kubernetes_is_that_of_the_example() -> None:
    manifests = list(yaml.safe_load_all((ROOT / "examples" / "kubernetes" / "flink.yaml").read_text()))
    (job,) = (one["spec"]["jobTemplate"]["spec"] for one in manifests if one["kind"] == "CronJob")
    (container,) = job["template"]["spec"]["containers"]
    assert " ".join([*container["command"], *container["args"]]) in CALLS


def test_a_night_on_dataflow_would_be_taken(tmp_path: Path) -> None:
    client("google.cloud.dataflow")
    (call,) = (call for call in CALLS if "DataflowRunner" in call and "..." not in call)
    section = PAGE[PAGE.index("\n## Dataflow") :]
    toml = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
    assert toml
    (tmp_path / "night.toml").write_text(toml[1])
    config = load_config(tmp_path / "night.toml")
    assert config.workers.scoring_accelerator
    check_remote(config, beam_options(flags(call)))
