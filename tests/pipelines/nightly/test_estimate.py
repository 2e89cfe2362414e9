"""An estimate against the night that follows it; and that it writes nothing."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.nightly import models, sample
from pipelines.nightly.estimate import Estimate, estimate
from pipelines.nightly.run import run
from pipelines.storage import runs
from rerank_core.errors import ConfigError, SourceError
from schemas.manifest import Manifest, to_json
from tests.conftest import MakeConfig, Night
from tests.support.fakes import fake, load_fake
from tests.support.tiny import DAY, Tiny, event, make_config, write_lines

NOW = datetime.datetime(2026, 3, 9, 2, tzinfo=datetime.UTC)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder, with size and time of change."""
    return {
        os.path.join(parent, name): (state.st_size, state.st_mtime_ns)
        for parent, folders, names in os.walk(folder)
        for name in (*folders, *names)
        for state in [os.lstat(os.path.join(parent, name))]
    }


def test_a_first_night_is_estimated_and_nothing_is_written(
    make_config: MakeConfig, tiny: Tiny, tmp_path: Path
) -> None:
    config = make_config(source={"log": str(tiny.log)}, output={"max_rejected_share": 0.5})
    before = tree(tmp_path), tree(tiny.folder)
    found = estimate(config, run_date=DAY, load=fake(), now=lambda: NOW)
    assert (tree(tmp_path), tree(tiny.folder)) == before
    assert not (tmp_path / "output").exists()
    manifest = run(config, run_date=DAY, load=fake())
    balance = manifest.balance
    assert (found.run_id, found.run_date) == (manifest.run_id, manifest.run_date)
    assert found.events == balance.events["read"]
    assert found.queries == found.sampled == balance.queries["read"]  # the sample is the whole night
    assert found.without_candidates == 1
    assert (found.pairs, found.pairs_error) == (balance.pairs["read"], 0)
    assert (found.fresh, found.reused) == (balance.pairs["published"], 0)
    assert {"FetchCandidates", "TagFeatures", "ScoreCandidates"} <= found.stages.keys()
    assert (found.speed_of, found.previous_run_id, found.in_time, found.cost) == ("", None, None, None)
    assert found.finished_at >= "2026-03-09T02:00:00+00:00"
    assert "no last night with this model" in found.notes[0]


@pytest.fixture
def again(night: Night, tiny: Tiny, tmp_path: Path) -> tuple[Any, Path]:
    """The configuration and the output folder of a night after the whole log's; one query of its log is new."""
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    lines = tiny.log.read_text().splitlines()
    log = write_lines(tmp_path / "log.jsonl", [*lines, event("Where is Seattle", "seattle", user="u9")])
    config = make_config(tiny, output, source={"log": str(log)}, output={"max_rejected_share": 0.5})
    return config, output


def test_what_the_last_night_scored_is_reused(again: tuple[Any, Path], night: Night) -> None:
    config, output = again
    before = tree(output)
    found = estimate(config, run_date=DAY, load=fake())
    assert tree(output) == before
    assert (found.speed_of, found.previous_run_id) == (night.manifest.run_id, night.manifest.run_id)
    pairs = run(config, run_date=DAY, load=fake()).balance.pairs
    assert 0 < pairs["published"] < pairs["reused"]
    assert (found.pairs, found.reused, found.fresh) == (pairs["read"], pairs["reused"], pairs["published"])
    assert "scored few pairs" in found.notes[0]


def with_stages(output: Path, manifest: Manifest, *, factor: int, seconds: float) -> None:
    """Publish a last night of `factor` times as many records, which took `seconds` a stage, at two workers."""
    stages = {
        stage: {key: amount * factor for key, amount in tally.items()} | {"seconds": seconds}
        for stage, tally in manifest.stages.items()
    }
    balance = dataclasses.replace(
        manifest.balance,
        **{
            unit: {what: count * factor for what, count in getattr(manifest.balance, unit).items()}
            for unit in ("events", "queries", "pairs")
        },
    )
    changed = dataclasses.replace(manifest, stages=stages, balance=balance, seconds=seconds * len(stages) / 2)
    (output / runs.manifest_path(manifest.run_date, manifest.run_id)).write_text(to_json(changed))


def left_out(output: Path, manifest: Manifest, *, stale: int, not_reached: int, pairs: int) -> None:
    """Let the last night have had more queries and pairs, which its deadline left out."""
    known = runs.read_manifest(str(output), manifest.run_date, manifest.run_id)
    more = stale + not_reached
    added = {"FetchCandidates": more, "ScoreCandidates": pairs}
    stages = {
        stage: tally | {"in": tally.get("in", 0) + added.get(stage, 0)}
        for stage, tally in known.stages.items()
    }
    queries = known.balance.queries | {"read": known.balance.queries["read"] + more, "stale": stale}
    changed = dataclasses.replace(
        known,
        stages=stages,
        balance=dataclasses.replace(known.balance, queries=queries),
        rejected=known.rejected | {"FindLists/not_reached": not_reached},
    )
    (output / runs.manifest_path(manifest.run_date, manifest.run_id)).write_text(to_json(changed))


def test_the_seconds_are_those_of_the_last_night_for_each_record(
    night: Night, tmp_path: Path, tiny: Tiny
) -> None:
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    with_stages(output, night.manifest, factor=100, seconds=3600.0)
    settings: dict[str, Any] = {"reuse": {"enabled": False}, "plan": {"cost_per_hour": 2.5}}
    config = make_config(
        tiny, output, source={"log": str(tiny.log)}, output={"max_rejected_share": 0.5}, **settings
    )

    def at(finish_by: datetime.datetime) -> Estimate:
        return estimate(config, run_date=DAY, load=fake(), finish_by=finish_by, now=lambda: NOW)

    found = at(NOW + datetime.timedelta(hours=1))
    assert found.speed_of == night.manifest.run_id
    assert found.notes == []
    # A hundredth of the records: a hundredth of an hour a stage.
    assert list(found.stages.values()) == pytest.approx([36.0] * len(night.manifest.stages))
    left_out(output, night.manifest, stale=10_000, not_reached=5_000, pairs=80_000)
    assert at(NOW).stages == pytest.approx(found.stages)  # what was not done took no time
    assert found.seconds > sum(found.stages.values()) / 2  # by what it takes to open the models
    assert found.cost == pytest.approx(2.5 * found.seconds / 3600)
    assert (found.in_time, found.finish_by) == (True, "2026-03-09T03:00:00+00:00")
    assert not at(NOW + datetime.timedelta(seconds=found.seconds / 2)).in_time


def test_a_sample_estimates_the_whole(
    again: tuple[Any, Path], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("dune", "solaris", "seattle", "tacoma", "rain", "snow", "sound", "lem", "asimov", "foundation")
    queries = [f"{one} {other} novel" for one in words for other in words if one < other]
    log = write_lines(tmp_path / "many.jsonl", [event(query) for query in queries])
    config = make_config(tiny, tmp_path / "many", source={"log": str(log)})
    whole = estimate(config, run_date=DAY, load=fake())
    monkeypatch.setattr(sample, "SAMPLE_QUERIES", 20)
    found = estimate(config, run_date=DAY, load=fake())
    assert (whole.queries, whole.sampled, found.queries, found.sampled) == (45, 45, 45, 20)
    assert found.pairs_error > 0
    assert abs(found.pairs - whole.pairs) <= 2 * found.pairs_error
    assert estimate(config, run_date=DAY, load=fake()).pairs == found.pairs  # the same sample


def test_what_stops_a_night_stops_its_estimate(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        estimate(make_config(source={"log": str(tmp_path / "none")}), run_date=DAY, load=fake())
    with pytest.raises(ConfigError, match="Beam knows no flag"):
        estimate(make_config(), run_date=DAY, load=fake(), beam_flags=["--nosuch=1"])


def test_a_log_without_queries_takes_no_time(make_config: MakeConfig, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "old.jsonl", [event("long ago", at="2020-01-01T00:00:00Z")])
    found = estimate(make_config(source={"log": str(log)}), run_date=DAY, load=fake())
    assert (found.queries, found.pairs, found.fresh) == (0, 0, 0)


def test_the_command(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load_scorer", load_fake)
    toml = tmp_path / "night.toml"
    toml.write_text(
        f'[source]\nlog = "{tiny.good_log}"\nindex = "{tiny.index}"\n[output]\npath = "{tmp_path / "output"}"\n'
        '[tags]\nrecogniser = "rules"\n[plan]\nfinish_by = "06:00"\ncost_per_hour = 3600000\n'
    )
    call = ["nightly", "--config", str(toml), "--run-date", str(DAY), "--dry-run"]
    before = tree(tmp_path)
    shown = CliRunner().invoke(app, call)
    assert shown.exit_code == 0, shown.output
    for text in ("queries            5", "deadline", "06:00:00+00:00", "cost", "Nothing was written."):
        assert text in shown.stdout
    printed = json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)
    assert (printed["queries"], printed["run_date"]) == (5, str(DAY))
    assert CliRunner().invoke(app, [*call, "--quiet"]).stdout == ""
    assert tree(tmp_path) == before


def test_the_command_of_a_night_that_is_done(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was published, so it is not estimated; --from-step rerank means it."""
    monkeypatch.setattr(models, "load_scorer", load_fake)
    toml = tmp_path / "night.toml"
    toml.write_text(
        f'[source]\nlog = "{tiny.good_log}"\nindex = "{tiny.index}"\n[output]\npath = "{tmp_path / "output"}"\n'
        '[tags]\nrecogniser = "rules"\n'
    )
    call = ["nightly", "--config", str(toml), "--run-date", str(DAY)]
    assert CliRunner().invoke(app, [*call, "--quiet"]).exit_code == 0
    before = tree(tmp_path)
    shown = CliRunner().invoke(app, [*call, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    for text in (
        "would not be reranked: run 20260308-",
        " was published before, from the same inputs\n",
        "report       would be done",
        "Nothing was written.",
    ):
        assert text in shown.stdout
    printed = json.loads(CliRunner().invoke(app, [*call, "--dry-run", "--json"]).stdout)
    assert (printed["run_date"], printed["held"]) == (str(DAY), False)
    assert {step["name"] for step in printed["steps"] if step["would"] == "be done"} == {"report"}
    toml.write_text(
        toml.read_text() + "[candidates]\ntop_k = 3\n"
    )  # a step that is named is done whatever changed
    before = tree(tmp_path)
    for named in (["--only", "report"], ["--from-step", "train"]):
        shown = CliRunner().invoke(app, [*call, "--dry-run", *named])
        assert shown.exit_code == 0, shown.output
        assert " was published before\n" in shown.stdout
    assert CliRunner().invoke(app, [*call, "--dry-run", "--only", "report", "--quiet"]).stdout == ""
    again = CliRunner().invoke(app, [*call, "--dry-run", "--from-step", "rerank", "--json"])
    assert "pairs" in json.loads(again.stdout)
    assert tree(tmp_path) == before
