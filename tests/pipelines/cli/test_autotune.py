"""`nightrank autotune` as a user types it, with the model that ships and with a tiny one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli import autotune as cli_autotune
from pipelines.cli.app import app
from rerank_core.scoring import autotune
from rerank_core.scoring.tuning import model_key
from tests.support.tiny import Tiny, write_lines

PASSAGES = ["Dune is a novel by Frank Herbert.", "Rain falls because warm air rises.", "Sand moves."]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder; ONNX Runtime alone is installed, and lines are as long as they need to be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(autotune, "_installed", lambda module: module == "onnxruntime")
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path / "cache"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [{"query": query, "passage": p} for query in ("who wrote dune", "why rain") for p in PASSAGES]
    return write_lines(tmp_path / "pairs.jsonl", rows)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The folder of a tiny model, in full precision and dynamically quantised."""
    pytest.importorskip("onnx")
    from onnxruntime.quantization import quantize_dynamic

    from tests.support.tiny_onnx import write_model

    folder = write_model(tmp_path / "small")
    quantize_dynamic(folder / "onnx" / "model.onnx", folder / "onnx" / "model_int8.onnx")
    return folder


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["autotune", *(str(argument) for argument in arguments)])


def fails(code: int, *arguments: str | Path) -> str:
    """The message of a call that must fail with `code`, with nothing on stdout."""
    failed = call(*arguments)
    assert (failed.exit_code, failed.stdout) == (code, ""), failed.output
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr
    return " ".join(failed.stderr.split())


def test_there_is_nothing_to_measure_by() -> None:
    assert "nothing to measure by: give --config FILE of the night, or --pairs FILE" in fails(2)


def test_what_cannot_be_used_is_told(tmp_path: Path, pairs: Path) -> None:
    assert "no configuration at" in fails(2, "--config", tmp_path / "nosuch.toml")
    assert "cannot read" in fails(3, "--pairs", tmp_path / "nosuch.jsonl")
    assert "no model folder at" in fails(3, tmp_path / "nosuch", "--pairs", pairs)
    write_lines(pairs, ["no json"])
    assert "line 1: not a" in fails(3, "--pairs", pairs)
    assert call("--pairs", pairs, "--run-date", "8 March").exit_code == 2


def test_the_table_names_engines_and_what_was_chosen(small: Path, pairs: Path, cache: Path) -> None:
    done = call(small, "--pairs", pairs)
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0].startswith("6 pairs of at most 256 tokens on ")
    assert lines[1] == "engine pairs/s agrees Spearman"
    assert {line.split(" ", 2)[1] for line in lines[2:4]} == {"onnx/model.onnx", "onnx/model_int8.onnx"}
    (chosen,) = [line for line in lines[2:4] if line.endswith(" chosen")]
    assert lines[4].startswith("agrees: nDCG@10 of an engine's order by that of onnx onnx/model.onnx.")
    assert lines[5:] == ['backend = "onnx"', f'onnx_file = "{chosen.split()[1]}"']
    (kept,) = json.loads((cache / "nightrank" / "tuning.json").read_text())["tunings"]
    assert (kept["model"], kept["pairs"]) == (model_key(small), 6)


def test_quiet_and_json(small: Path, pairs: Path) -> None:
    quiet = call(small, "--pairs", pairs, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")
    done = call(small, "--pairs", pairs, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed["chosen"] in [row["choice"] for row in printed["measured"]]
    assert printed["chosen"]["backend"] == "onnx"
    assert (printed["reference"], printed["pairs"], printed["max_length"]) == ("onnx onnx/model.onnx", 6, 256)


def test_the_pairs_are_those_of_a_night(small: Path, tiny: Tiny, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "night.toml").write_text(
        f'[source]\nlog = "{tiny.good_log}"\nindex = "{tiny.index}"\n[output]\npath = "output"\n'
        '[scoring]\nmodel = "small"\nmax_length = 64\ntuning = "here.json"\n[tags]\nrecogniser = "rules"\n'
    )
    done = call("--config", tmp_path / "night.toml", "--run-date", "2026-03-08", "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["max_length"] == 64
    assert printed["pairs"] > 20
    assert (tmp_path / "here.json").is_file()
    assert not cache.exists()
    assert "no query with candidates" in fails(
        3, "--config", tmp_path / "night.toml", "--run-date", "2020-01-01"
    )


def test_without_a_model_it_is_the_one_that_ships(pairs: Path) -> None:
    done = call("--pairs", pairs, "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["chosen"]["onnx_file"] == "onnx/model_int8.onnx"
    assert printed["measured"][0]["dropped"] == ""


def test_an_engine_that_failed_stands_in_the_table_with_its_reason(small: Path, pairs: Path) -> None:
    (small / "onnx" / "model_int8.onnx").write_bytes(b"")
    done = call(small, "--pairs", pairs)
    assert done.exit_code == 0, done.output
    printed = "".join(done.stdout.split())  # the table breaks long reasons where the path's length has it
    assert "(0bytes)cannotbeloaded" in printed


def test_what_is_being_measured_is_shown_only_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for show in (True, False):
        with cli_autotune.measuring(show=show) as on_measured:
            on_measured("onnx [bold]")
    assert capsys.readouterr() == ("", "")
