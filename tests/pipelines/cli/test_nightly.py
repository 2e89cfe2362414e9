"""What a person sees: nothing wider than 80 columns but paths, and nothing that a document or a query wrote."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.cli import console as cli_console
from pipelines.cli import index, night_summary, nightly, show
from pipelines.cli.nightly import result_text
from pipelines.nightly.progress import Progress
from pipelines.sources.local.bm25_index import IndexReport
from schemas.manifest import Balance, Manifest
from tests.conftest import Night

Screen = Callable[[], str]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """What was printed on a terminal of 80 columns, colours left out."""
    stream = io.StringIO()
    console = Console(file=stream, width=80, color_system=None, highlight=False, force_terminal=True)
    monkeypatch.setattr(cli_console, "out", console)
    monkeypatch.setattr(cli_console, "err", console)
    return stream.getvalue


def large(manifest: Manifest) -> Manifest:
    """The same night with the numbers of a large site, judged, and with all there is to complain of."""
    stages = {
        stage: {what: amount * 10**7 if what != "seconds" else 86399.99 for what, amount in tally.items()}
        for stage, tally in manifest.stages.items()
    }
    stages["ScoreCandidates"] |= {"in": 98_765_432, "out": 98_765_432, "rejected": 1_234_567, "seconds": 1e4}
    stages["ReuseScores"]["reused"] = 198_765_432
    stages["ReadQueryLog"]["events_masked"] = 1_234_567
    measures = {
        f"{side} {name}": 0.5 for side in ("before", "after") for name in ("nDCG@10", "MAP", "MRR@10", "R@10")
    }
    gain = {"gain nDCG@10": -0.5, "gain nDCG@10 low": -0.501, "gain nDCG@10 high": -0.499}
    balance = Balance(
        *(
            {what: n * 10**7 for what, n in counts.items()} | {"below_top_n": 10**9}
            for counts in dataclasses.asdict(manifest.balance).values()
        )
    )
    return dataclasses.replace(
        manifest,
        stages=stages,
        balance=balance,
        metrics={level: {"queries": 12345.0, **measures, **gain} for level in ("document", "unit")},
        degraded={"truncated_pairs": 123_456_789},
    )


def test_a_night_fits_the_terminal(night: Night, screen: Screen) -> None:
    night_summary.print_night(night.manifest, str(night.output))
    night_summary.print_night(large(night.manifest), str(night.output))
    shown = screen()
    for line in shown.splitlines():
        assert len(line) <= 80 or "run_id=" in line or str(night.output) in line, line
    assert "…" not in shown  # no number is cut
    for text in (
        "ReadQueryLog",
        "WriteHardNegatives",
        "98,765,432",
        "198,765,432 reused",
        "nDCG@10",
        "+0.0 -50.1 to -49.9",
        "unit",
        "14 read = 7 kept + 2 outside window + 5 rejected",
        "FetchCandidates/no_candidates",
        "123,456,789 pairs hold more than 256 tokens",
        "secrets in 1,234,567 events",
        f"latest.json names run {night.manifest.run_id}",
    ):
        assert text in " ".join(shown.split()), text


def test_a_night_of_an_older_date_says_what_is_in_service(night: Night, screen: Screen) -> None:
    older = dataclasses.replace(night.manifest, run_id="20260301-older", run_date="2026-03-01")
    night_summary.print_night(older, str(night.output))
    told = f"latest.json still names run {night.manifest.run_id} of 2026-03-08, a later date; --set-latest moves it"
    assert told in " ".join(screen().split())


def test_what_was_not_reused_is_told(night: Night, screen: Screen) -> None:
    problem = "run [bold]x[/] was scored by another model"
    night_summary.print_night(dataclasses.replace(night.manifest, degraded={"reuse": problem}), "out")
    assert problem in screen()


def row(**values: Any) -> dict[str, Any]:
    plain = {
        "title": "Dune",
        "text": "A novel.",
        "passage_id": "dune",
        "rank": 1,
        "rank_before": 3,
        "score": 0.987,
        "bm25_score": 12.3,
        "hop": 0,
        "role": "Background",
        "entities": ["Dune", "Frank Herbert"],
        "causal": True,
        "reasoning": True,
        "hop_chain": ["dune"],
        "evidence": "A novel.",
        "evidence_score": 0.5,
    }
    return plain | values


def test_each_reason_to_look_into_a_night_has_a_line(night: Night, screen: Screen) -> None:
    drift = {
        "verdict": "ok",
        "reasons": [],
        "notes": [],
        "previous": "20260307-0123456789ab",
        "measures": {"queries": {}},
    }
    night_summary.print_night(dataclasses.replace(night.manifest, drift=drift), str(night.output))
    assert "drift ok: 1 measures against run 20260307-0123456789ab and the week\n" in screen()
    worse = drift | {
        "verdict": "warn",
        "reasons": ["fewer [red]queries", "other scores"],
        "notes": ["a note"],
    }
    night_summary.print_night(dataclasses.replace(night.manifest, drift=worse), str(night.output))
    for line in ("drift: warn fewer [red]queries\n", "drift: warn other scores\n", "drift a note\n"):
        assert line in screen()


def test_a_query_fits_the_terminal(night: Night, screen: Screen) -> None:
    show.print_query(show.read_query(str(night.output), "who wrote DUNE?"), top=3)
    shown = screen()
    assert "Who wrote Dune" in shown
    assert "more; --top" in shown
    long = [row(title="A long title " * 12, passage_id="https://example.org/" + "path/" * 20 + "#17")]
    show.print_query(
        show.QueryRows("q " * 300, "run", "2026-03-08", [*long, *[row(rank=n) for n in range(2, 200)]]),
        top=10,
    )
    assert all(len(line) <= 80 for line in screen().splitlines())
    assert "▲2" in screen()
    show.print_query(show.QueryRows("q", "run", "2026-03-08", [row(stale_since="2026-03-01")]), top=1)
    assert "run run, night of 2026-03-08, list of 2026-03-01" in screen()


def test_a_list_is_explained(screen: Screen) -> None:
    chained = row(hop=1, hop_chain=["ann lee", "d7", "tulsa"])
    alone = row(rank=2, hop=-1, hop_chain=[], evidence=None, evidence_score=None)
    plain = row(rank=3, hop=None, hop_chain=None)
    show.print_query(show.QueryRows("q", "run", "2026-03-08", [chained, alone, plain]), top=3, explain=True)
    shown = " ".join(screen().split())
    assert "HOP 1: query -> ann lee -> d7 -> tulsa -> dune A novel. 0.500" in shown
    assert "no chain of shared entities leads here" in shown
    assert "no tags in this run" in shown


def test_texts_are_shown_and_not_obeyed(screen: Screen) -> None:
    markup, escape = "[bold]x[/] [/nosuch] \\", "\x1b[2J\x1b]0;title\x07"
    evil = row(title=markup + escape, text=markup, passage_id=markup + escape, entities=["a\x1b[31m", "[b]"])
    for held in (evil, evil | {"title": ""}, evil | {"title": None, "text": None, "hop": None}):
        show.print_query(show.QueryRows(markup + escape, "run", "2026-03-08", [held]), top=1)
    cli_console.print_error(markup + escape)
    index.print_index(IndexReport(1, {"empty": 1}, "f", Path(markup), "en"))
    shown = screen()
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert shown.count("[bold]x[/] [/nosuch]") >= 5


def test_a_manifest_is_one_line_of_json(night: Night) -> None:
    line = night_summary.manifest_json(night.manifest)
    assert "\n" not in line
    assert json.loads(line)["run_id"] == night.manifest.run_id


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_drawn_on_a_terminal_and_logged_elsewhere(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(cli_console, "err", Console(file=stream, width=80, force_terminal=terminal))
    monkeypatch.setattr(cli_console, "LOG_EVERY_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        with nightly.night_progress(show=True) as draw:
            draw(Progress(0.0, 0))
            draw(Progress(0.25, 1234))
        with cli_console.counter("Indexing", unit="passages", show=True) as count:
            count(1000)
            count(500)
    if terminal:
        assert "1,234 pairs" in stream.getvalue()
        assert not caplog.records
    else:
        assert not stream.getvalue()
        messages = [record.getMessage() for record in caplog.records]
        assert any("25 %" in message and "1,234 pairs scored" in message for message in messages)
        assert "Indexing: 1,500 passages" in messages


def test_a_quiet_night_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(cli_console, "err", Console(file=stream, width=80, force_terminal=True))
    monkeypatch.setattr(cli_console, "LOG_EVERY_SECONDS", 0.0)
    with nightly.night_progress(show=False) as draw:
        draw(Progress(0.5, 10))
    assert not stream.getvalue().strip("\x1b[?25hl\n")
    assert not caplog.records


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"path": "out/report.html"}, "path out/report.html"),
        ({"removed": []}, "nothing to do"),
        ({"removed": ["20260301-a", "20260302-b"]}, "removed 20260301-a, 20260302-b"),
        (
            {
                "model": "m",
                "promoted": False,
                "reason": "slow",
                "previous": "",
                "checks": [{"name": "speed"}],
            },
            "model m, not promoted, reason slow",
        ),
        ({"model": "m", "problem": "", "sets": {"ours": {"candidate": {"nDCG@10": 0.5}}}}, "model m"),
        ({"model": "m", "runs": [], "parent": None, "figures": [{"loss": 0.5}], "notes": []}, "model m"),
    ],
)
def test_the_result_of_a_step_is_told_without_its_records(result: dict[str, Any], told: str) -> None:
    assert result_text(result) == told
