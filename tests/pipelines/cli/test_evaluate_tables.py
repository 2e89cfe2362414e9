"""What a person sees of an evaluation: nothing wider than 80 columns, percent, marks, and nothing left unsaid."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from pipelines.cli import console as cli_console
from pipelines.cli.evaluate import print_evaluation
from rerank_core.evaluation.comparison import SetResult, SystemResult, compare_systems
from rerank_core.evaluation.measures import MEASURES

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
