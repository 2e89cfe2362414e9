"""`nightrank evaluate` as a user types it, and its tables: within 80 columns, percent, marks, warnings."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli import console as cli_console
from pipelines.cli.app import app
from pipelines.cli.evaluate import print_evaluation
from rerank_core.evaluation.comparison import SetResult, SystemResult, compare_systems
from rerank_core.evaluation.measures import MEASURES
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


Screen = Callable[[], str]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """What was printed on a terminal of 80 columns, bold as in ANSI."""
    stream = io.StringIO()
    console = Console(file=stream, width=80, color_system="standard", highlight=False, force_terminal=True)
    monkeypatch.setattr(cli_console, "out", console)
    return stream.getvalue


def system(values: list[float], **fields: object) -> SystemResult:
    by_query = {f"q{n}": value for n, value in enumerate(values)}
    by_measure = dict.fromkeys(MEASURES, by_query)
    pairs = dict.fromkeys(by_query, 100)
    return SystemResult(by_measure, None, 0.5, pairs, 0, {})._replace(**fields)  # type: ignore[arg-type]


def a_set(name: str, **systems: SystemResult) -> SetResult:
    types = {f"q{n}": "bridge" if n % 2 else "single" for n in range(10)}
    return SetResult(name, "document", "BM25's best 100", "f", 10, types, 0.875, {"not_asked": 290}, systems)


def cells(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line.split()


def test_percent_best_and_marks(screen: Screen) -> None:
    base = system([0.5] * 10)
    better = system([0.6 + n / 100 for n in range(10)], f1=0.25, auc=0.75)
    worse = system([0.4 - n / 100 for n in range(10)])
    print_evaluation(
        compare_systems([a_set("hotpot", bm25=base, up=better, down=worse)], baseline="", fingerprints={})
    )
    shown = screen()
    bold = "\x1b[1m{}\x1b[0m".format
    table = shown.partition("by type")[0]
    assert cells(table, "bm25") == ["bm25", "50.0", "50.0", "50.0", "50.0", "-", "50.0"]
    assert cells(table, "up") == [
        "up",
        f"{bold('64.5')}*",
        f"{bold('64.5')}*",
        bold("64.5"),
        bold("64.5"),
        bold("25.0"),
        bold("75.0"),
    ]
    assert cells(table, "down")[1:5] == ["35.5†", "35.5†", "35.5", "35.5"]
    assert "10 queries; candidates: BM25's best 100, 87.5 % of the relevant" in shown
    assert "290" in shown
    assert "* better, † worse than bm25" in " ".join(shown.split())
    by_type = shown.partition("nDCG@10 by type of query")[2]
    assert cells(by_type, "bm25") == ["bm25", "50.0", "50.0"]
    assert cells(by_type, "up") == ["up", bold("65.0"), bold("64.0")]


def test_what_speaks_against_a_figure_is_said(screen: Screen) -> None:
    first = system([0.5] * 10, missing=2)
    second = system([0.5] * 10, missing=2, failed=3, truncated=1234, unscored=5, by_tags={"forged": 0.5})
    one = a_set("hotpot", bm25=first, ours=second)._replace(notes=("a note [of] a night",))
    print_evaluation(compare_systems([one], baseline="", fingerprints={}))
    shown = " ".join(screen().replace("\x1b[33m", "").replace("\x1b[0m", "").split())
    assert "2 queries it ranks nothing for (zero in every measure): bm25, ours" in shown
    assert "3 pairs it could not score (left out of the list): ours" in shown
    assert "1,234 pairs longer than --max-length (truncated): ours" in shown
    assert "5 pairs pruned by the cascade (in neither F1 nor AUC): ours" in shown
    assert "measured with forged tags in the input: ours" in shown
    assert "a note [of] a night" in shown
    assert "Shortcut gap" not in shown


def test_the_shortcut_gap(screen: Screen) -> None:
    by_tags = {"true": 0.5, "none": 0.25, "shuffled": 0.375, "forged": 0.5625}
    one = a_set("hotpot", bm25=system([0.5] * 10), ours=system([0.5] * 10, by_tags=by_tags))
    print_evaluation(compare_systems([one], baseline="", fingerprints={}))
    gap = screen().partition("Shortcut gap")[2]
    assert [
        mode for mode in gap.replace("\x1b[1m", "").replace("\x1b[0m", "").split() if mode in by_tags
    ] == list(by_tags)
    assert cells(gap, "ours")[1::2] == ["50.0", "25.0", "37.5", "56.2"]
    assert cells(gap, "ours")[2::2] == ["(+0.0)", "(-25.0)", "(-12.5)", "(+6.2)"]


def test_it_fits_the_terminal(screen: Screen) -> None:
    name = "bi:all-MiniLM-L6-v2-with-a-very-long-name-of-its-own-and-more"
    by_tags = dict.fromkeys(("true", "none", "shuffled", "forged"), 1.0)
    long = {name: system([1.0] * 10, f1=1.0, auc=1.0, by_tags=by_tags), "[red]": system([0.5] * 10)}
    print_evaluation(
        compare_systems([a_set("one", **long), a_set("two", **long)], baseline="[red]", fingerprints={})
    )
    for line in screen().splitlines():
        visible = line.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[33m", "")
        assert len(visible) <= 80, visible
    assert "[red]" in screen()  # a label is no markup


def test_one_system_needs_no_tests(screen: Screen) -> None:
    print_evaluation(
        compare_systems([a_set("hotpot", bm25=system([0.5] * 10))], baseline="", fingerprints={})
    )
    assert "Holm" not in screen()
