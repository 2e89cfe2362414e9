"""The table of sources: each can be opened, an unknown one is refused, and one more is one more line."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.nightly import models
from pipelines.sources import SOURCES, open_source
from rerank_core.config.night import load_config, parse_config
from rerank_core.errors import ConfigError
from tests.support.fakes import load_fake

EXAMPLES = Path(__file__).parents[3] / "examples"
SET = {
    "log": "log.jsonl",
    "index": "index",
    "elasticsearch": {"url": "http://es", "log_index": "l", "index": "i"},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_can_be_opened(kind: str) -> None:
    if kind == "elasticsearch":
        pytest.importorskip("elasticsearch")
    source = open_source(parse_config({"source": {"kind": kind, **SET}}))
    assert type(source).__name__ == SOURCES[kind].rpartition(":")[2]
    assert list(inspect.signature(source.candidates).parameters) == ["queries", "top_k"]


@pytest.mark.parametrize(
    ("kind", "key"), [("local", "log"), ("local", "index"), ("elasticsearch", "elasticsearch.log_index")]
)
def test_a_source_names_the_key_that_it_misses(kind: str, key: str) -> None:
    if kind == "elasticsearch":
        pytest.importorskip("elasticsearch")
    missing: dict[str, object] = {"log": ""} if key == "log" else {"log": "log.jsonl"}
    with pytest.raises(ConfigError, match=rf"^'source\.{key}' is not set; see examples/nightly.toml"):
        open_source(parse_config({"source": {"kind": kind, **missing}}))


def test_the_examples_name_known_sources() -> None:
    kinds = {load_config(path).source.kind for path in EXAMPLES.glob("*.toml") if "train" not in path.name}
    assert kinds == set(SOURCES)


@pytest.mark.parametrize("command", ["nightly", "autotune"])
def test_an_unknown_source_is_refused_when_a_command_loads_it(command: str, tmp_path: Path) -> None:
    night = tmp_path / "night.toml"
    night.write_text('[source]\nkind = "elastic"\n')
    failed = CliRunner().invoke(
        app, [command, "--config", str(night), *(["--pairs", "x"] if command == "autotune" else [])]
    )
    assert failed.exit_code == 2
    assert "'source.kind' = 'elastic': no such source; known are 'local', 'elasticsearch'" in failed.stderr


def test_a_toy_source_is_one_line_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "toy", "tests.support.toy_source:ToySource")
    monkeypatch.setattr(models, "load_scorer", load_fake)
    night = tmp_path / "night.toml"
    night.write_text(
        '[source]\nkind = "toy"\n[output]\npath = "output"\nmax_rejected_share = 0.5\n[tags]\nrecogniser = "rules"\n'
    )
    done = CliRunner().invoke(app, ["nightly", "--config", str(night), "--run-date", "2026-03-08", "--json"])
    assert done.exit_code == 0, done.output
    manifest = json.loads(done.stdout)
    assert manifest["source"]["kind"] == "toy"
    assert manifest["balance"]["events"]["kept"] == 4
    assert manifest["balance"]["queries"] == {"read": 3, "published": 2, "stale": 0, "rejected": 1}
    assert manifest["balance"]["pairs"]["published"] == 3
