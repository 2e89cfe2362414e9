"""`nightrank evaluate` as a user types it, with the model that ships and with a tiny one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli.app import app
from tests.conftest import Night
from tests.support.tiny_set import write_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "tiny")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


def fails(code: int, *arguments: str | Path) -> str:
    """The message of a call that must fail with `code`, with nothing on stdout."""
    failed = call(*arguments)
    assert (failed.exit_code, failed.stdout) == (code, ""), failed.output
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr
    return " ".join(failed.stderr.split())


def test_the_model_that_ships_beside_bm25(folder: Path, tmp_path: Path) -> None:
    files = (
        "--output",
        tmp_path / "all.json",
        "--per-query",
        tmp_path / "rows.jsonl",
        "--work",
        tmp_path / "work",
    )
    done = call(folder, "--system", "bm25", "--system", "ours=default", "--top-k", "5", *files)
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    assert "tiny 4 queries; candidates: BM25's best 5" in shown
    assert "better, † worse than bm25" in shown
    written = json.loads((tmp_path / "all.json").read_text())
    assert 0 < written["figures"]["tiny/bm25/MAP"] <= 1
    assert written["figures"]["tiny/ours/nDCG@10/p_holm"] == 1.0  # four questions prove nothing
    assert set(written["fingerprints"]) == {"set tiny", "ours"}
    assert (written["settings"]["top_k"], written["settings"]["max_length"]) == (5, 256)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2 * 4
    scores, index = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert scores == "scores.sqlite"
    assert index.startswith("tiny-")
    quiet = call(folder, "--system", "bm25", "--work", tmp_path / "work", "-q")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_a_model_that_reads_tags_is_measured_with_all(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from tests.support.tiny_onnx import write_model

    model = write_model(tmp_path / "small")
    (model / "nightrank.json").write_text(json.dumps({"reads_tags": True}))
    both = (
        "--system",
        model,
        "--system",
        f"again={model}",
        "--max-length",
        "64",
        "--output",
        tmp_path / "all.json",
    )
    done = call(folder, *both, "--level", "unit", "--own", "--baseline", "again")
    assert done.exit_code == 0, done.output
    assert "Shortcut gap" in done.stdout
    written = json.loads((tmp_path / "all.json").read_text())
    assert written["baselines"] == {"tiny": "again"}
    assert written["tags"] == {"small": "true", "again": "true"}
    figures = written["figures"]
    assert figures["tiny/small/MAP"] == figures["tiny/again/MAP"] == figures["tiny/again/tags=true/MAP"]
    assert {f"tiny/small/tags={mode}/MAP" for mode in ("none", "shuffled", "forged")} <= set(figures)


def test_a_night_and_a_run_file(night: Night, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "old.trec").write_text("q1 Q0 dune 1 2.0 tag\nq1 Q0 messiah 2 1.0 tag\n")
    judged = ("--queries", folder / "queries.jsonl", "--qrels", folder / "qrels" / "dev.tsv")
    done = call("--night", night.output, *judged, "--system", f"old=run:{tmp_path / 'old.trec'}", folder)
    assert done.exit_code == 0, done.output
    tables = [line.split()[0] for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert tables.count("old") >= 2
    assert "reranked" in tables
    assert f"night {night.manifest.run_date}" in done.stdout


def test_a_wrong_call_is_2(folder: Path, tmp_path: Path) -> None:
    assert "nothing to measure on: give SET" in fails(2)
    assert "nothing to measure: give --system" in fails(2, folder)
    assert "two sets are called 'tiny'" in fails(2, folder, folder, "--system", "bm25")
    assert "two systems are called 'bm25'" in fails(2, folder, "--system", "bm25", "--system", "bm25")
    assert "no --tags 'fake'" in fails(2, folder, "--system", "bm25", "--tags", "fake")
    assert "--baseline is one of: bm25" in fails(2, folder, "--system", "bm25", "--baseline", "nosuch")
    assert "has no grade" in fails(2, folder, "--system", "bm25", "--min-relevance", "tiny=high")
    assert "there is no folder" in fails(
        2, folder, "--system", "bm25", "--output", tmp_path / "no" / "x.json"
    )
    assert "--night needs --queries and --qrels" in fails(2, "--night", tmp_path)
    judged = ("--queries", folder / "queries.jsonl", "--qrels", folder / "qrels" / "dev.tsv")
    assert "judgements of a --night" in fails(2, folder, "--system", "bm25", *judged)
    assert "as it was published" in fails(2, "--night", tmp_path, *judged, "--system", "bm25")
    assert call(folder, "--system", "bm25", "--level", "window").exit_code == 2


def test_an_input_that_cannot_be_used_is_3(folder: Path, tmp_path: Path) -> None:
    assert "no judgements at" in fails(3, folder, "--system", "bm25", "--split", "test")
    assert "cannot read" in fails(3, tmp_path / "nosuch", "--system", "bm25")
    assert "cannot read" in fails(3, folder, "--system", f"run:{tmp_path / 'nosuch'}")
    (folder / "corpus.jsonl").unlink()
    assert "no corpus at" in fails(3, folder, "--system", "bm25")


def test_grades_may_be_of_one_set(folder: Path, tmp_path: Path) -> None:
    both = (
        folder,
        write_set(tmp_path / "other"),
        "--system",
        "bm25",
        "--output",
        tmp_path / "all.json",
        "-q",
    )
    assert call(*both, "--min-relevance", "tiny=2", "--min-relevance", "1").exit_code == 0
    written = json.loads((tmp_path / "all.json").read_text())
    assert (written["figures"]["tiny/queries"], written["figures"]["other/queries"]) == (1, 4)
    assert written["settings"]["min_relevance"] == {"tiny": 2, "other": 1, "night": 1}


def test_json_is_one_object_on_stdout_and_output_a_file(folder: Path, tmp_path: Path) -> None:
    files = ("--output", tmp_path / "all.json", "--per-query", tmp_path / "rows.jsonl")
    done = call(folder, "--system", "bm25", "--json", *files)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == json.loads((tmp_path / "all.json").read_text())
    assert json.loads(done.stdout)["figures"]["tiny/queries"] == 4
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 4
