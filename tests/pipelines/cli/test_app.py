"""The commands as a user types them: what they print, where, and their exit codes."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import pipelines
from pipelines.cli import nightly as cli_nightly
from pipelines.cli.app import app
from pipelines.nightly import models
from pipelines.nightly import run as nightly_run
from pipelines.storage.lock import lock
from rerank_core.config.night import Config
from rerank_core.config.operation import Plan
from schemas.manifest import Manifest, to_json
from tests.conftest import Night
from tests.support.fakes import load_fake
from tests.support.tiny import CORPUS, DAY, Tiny, event, write_lines

ROOT = Path(__file__).parents[3]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def config(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`config(log=..., index=..., output=..., more=...)` -> a TOML; the model is a fake one."""
    monkeypatch.setattr(models, "load_scorer", load_fake)

    def write(
        *,
        log: Path = tiny.good_log,
        index: Path = tiny.index,
        output: Path = tmp_path / "output",
        more: str = "",
    ) -> Path:
        text = f'[source]\nlog = "{log}"\nindex = "{index}"\n[output]\npath = "{output}"\n{more}'
        text += '\n[tags]\nrecogniser = "rules"\n'
        (tmp_path / "night.toml").write_text(text)
        return tmp_path / "night.toml"

    return write


def test_help_and_version() -> None:
    shown = call("--help").output
    for command in ("index", "nightly", "show"):
        assert f" {command} " in shown
        assert call(command, "--help").exit_code == 0
    assert call("--version").output == f"nightrank {pipelines.__version__}\n"
    assert call("nosuch").exit_code == 2
    assert call("nightly").exit_code == 2  # no --config


def test_a_night_is_told_as_asked(
    config: Callable[..., Path], night: Night, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The night itself is the fixture's; one from end to end is the last test of this file.
    shutil.copytree(night.output, tmp_path / "output")
    asked: list[dict[str, Any]] = []

    def run(read: Config, **options: Any) -> Manifest:
        asked.append(options)
        return night.manifest

    monkeypatch.setattr(nightly_run, "run", run)
    command = ("nightly", "--config", config())
    plain = call(*command, "--run-date", "2026-03-08", "--", "--direct_num_workers=2")
    assert plain.exit_code == 0, plain.output
    assert "\nreport       done  path " in plain.stdout
    assert "Night of 2026-03-08" in plain.stdout
    assert f"latest.json names run {night.manifest.run_id}" in plain.stdout
    assert (asked[0]["run_date"], list(asked[0]["beam_flags"])) == (DAY, ["--direct_num_workers=2"])
    quiet = call(*command, "-q")
    assert (quiet.exit_code, quiet.output) == (0, "")
    yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    assert asked[1]["run_date"] == yesterday
    assert json.loads(call(*command, "--json").stdout) == json.loads(to_json(night.manifest))
    assert call(*command, "--run-date", "8 March").exit_code == 2
    assert [options["set_latest"] for options in asked] == [False] * 3
    assert call(*command, "--set-latest", "--quiet").exit_code == 0
    assert asked[-1]["set_latest"]


def test_a_list_is_shown(night: Night) -> None:
    shown = call("show", "  WHO wrote dune?? ", "--run", night.output, "--top", "2")
    assert shown.exit_code == 0
    assert "Who wrote Dune" in shown.stdout
    assert "more; --top" in shown.stdout
    printed = json.loads(call("show", "who wrote dune", "--run", night.output, "--json", "--top", "2").stdout)
    assert (printed["query"], printed["run_id"], len(printed["rows"])) == (
        "Who wrote Dune",
        night.manifest.run_id,
        2,
    )
    assert [row["rank"] for row in printed["rows"]] == [1, 2]
    named = call("show", "who wrote dune", "--run", night.output, "--run-id", night.manifest.run_id)
    assert named.exit_code == 0


def test_an_unknown_query_names_the_nearest(night: Night) -> None:
    shown = call("show", "who wrote duna", "--run", night.output)
    assert (shown.exit_code, shown.stdout) == (3, "")
    assert "has no query 'who wrote duna'; the nearest are 'Who wrote Dune'" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("arguments", [["--run", "nosuch"], ["--run", "{output}", "--run-id", "nosuch"]])
def test_a_run_that_is_not_there_is_told(night: Night, arguments: Sequence[str]) -> None:
    shown = call("show", "dune", *(argument.format(output=night.output) for argument in arguments))
    assert (shown.exit_code, shown.stdout) == (3, "")
    assert shown.stderr.startswith("error: no ")


def nightly_fails(code: int, path: Path, *flags: str) -> str:
    """The message of a night that must fail with `code`, on one line and with nothing on stdout."""
    failed = call("nightly", "--config", path, "--run-date", "2026-03-08", *flags)
    assert (failed.exit_code, failed.stdout) == (code, ""), failed.output
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr
    return failed.stderr


def test_a_wrong_call_is_2(config: Callable[..., Path], tmp_path: Path) -> None:
    assert "no configuration at" in nightly_fails(2, tmp_path / "nosuch.toml")
    assert "'ranking.top_n' = 'ten'" in nightly_fails(2, config(more='[ranking]\ntop_n = "ten"\n'))
    assert "nearest known one is 'ranking.top_n'" in nightly_fails(2, config(more="[ranking]\ntop_m = 1\n"))
    assert "not valid TOML" in nightly_fails(2, config(more="[ranking\n"))
    assert "--nosuch" in nightly_fails(2, config(), "--", "--nosuch")
    (tmp_path / "file").write_text("")
    assert "cannot write to output.path" in nightly_fails(2, config(output=tmp_path / "file" / "output"))


def test_an_input_that_cannot_be_used_is_3(config: Callable[..., Path], tmp_path: Path) -> None:
    assert "no index at" in nightly_fails(3, config(index=tmp_path / "nosuch"))
    assert "no query log at" in nightly_fails(3, config(log=tmp_path / "nosuch.jsonl"))
    queries = tmp_path / "queries.jsonl"
    queries.write_text("no json\n")
    assert f"{queries}:1" in nightly_fails(3, config(more=f'[evaluation]\nqueries = "{queries}"\n'))
    missing = call("index", tmp_path / "nosuch.jsonl", "--to", tmp_path / "index")
    assert (missing.exit_code, missing.stdout) == (3, "")
    (tmp_path / "file").write_text("")
    corpus = write_lines(tmp_path / "corpus.jsonl", CORPUS)
    nowhere = call("index", corpus, "--to", tmp_path / "file" / "index")
    assert (nowhere.exit_code, "Traceback" in nowhere.output) == (3, False)


def test_a_model_that_cannot_be_used_is_3(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real loader
    more = f'[scoring]\nmodel = "{tmp_path}/nosuch-model"\n'
    assert "nosuch-model" in nightly_fails(3, config(more=more))


def test_a_folder_in_use_is_4(config: Callable[..., Path], tmp_path: Path) -> None:
    with lock(str(tmp_path / "output"), "20260308-other"):
        message = nightly_fails(4, config())
    assert "another run (20260308-other, process" in message


def test_a_night_that_may_not_be_published_is_5(config: Callable[..., Path], tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [event("dune", at="2020-01-01T00:00:00Z")])
    assert "1 events read, 1 outside the window" in nightly_fails(5, config(log=log))


def test_a_defect_shows_its_traceback(config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*arguments: Any, **options: Any) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr(nightly_run, "prepare", defect)
    failed = call("nightly", "--config", config())
    assert failed.exit_code == 1
    assert isinstance(failed.exception, KeyError)


def test_the_real_command_with_a_real_model(tiny: Tiny, tmp_path: Path) -> None:
    """A process of its own, ONNX Runtime included: stdout holds one JSON object and stderr no warning of Beam's."""
    pytest.importorskip("onnx")
    from tests.support.tiny_onnx import write_model

    write_model(tmp_path / "model")
    (tmp_path / "night.toml").write_text(
        f'[source]\nlog = "{tiny.log}"\nindex = "{tiny.index}"\n[scoring]\nmodel = "model"\nmax_length = 64\n'
        '[output]\npath = "output"\nmax_rejected_share = 0.5\n[tags]\nrecogniser = "rules"\n'
    )
    command = [sys.executable, "-m", "pipelines.cli", "nightly", "--config", "night.toml", "--json"]
    done = subprocess.run(
        [*command, "--run-date", "2026-03-08"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NIGHTRANK_TEST_SECRET": "hunter2-secret"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["balance"]["queries"]["published"] == 5
    assert printed["degraded"]["truncated_pairs"] > 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 8
    assert not [path for path in written if b"hunter2-secret" in path.read_bytes()]
    assert "hunter2-secret" not in done.stdout + done.stderr
    assert not done.stderr, done.stderr


# --- the steps of a night


def nightly(config: Path, *flags: str) -> Result:
    return call("nightly", "--config", config, "--run-date", "2026-03-08", *flags)


def test_a_night_started_again_says_that_it_was_done(config: Callable[..., Path]) -> None:
    first = nightly(config())
    assert first.exit_code == 0, first.output
    assert "Published" in first.stdout
    again = nightly(config())
    assert (again.exit_code, again.stderr) == (0, "")
    lines = again.stdout.splitlines()
    assert "was published before, from the same inputs; --from-step rerank runs it again" in lines[0]
    assert lines[1].startswith("report       done")
    assert len(lines) == 2
    as_json = json.loads(nightly(config(), "--json").stdout)
    assert as_json["run_id"] in lines[0]
    anew = nightly(config(), "--from-step", "rerank", "--json")
    assert json.loads(anew.stdout)["previous_run_id"] == as_json["run_id"]
    only = nightly(config(), "--only", "report").stdout.splitlines()
    assert [line.split()[:2] for line in only[1:]] == [["report", "done"]]
    only = nightly(config(), "--only", "train").stdout.splitlines()
    assert [line.split()[:3] for line in only[1:]] == [["train", "not", "due"], ["report", "done", "path"]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--from-step", "mining"), "no step 'mining'; the steps are rerank, train, evaluate"),
        (("--only", "report", "--from-step", "report"), "exclude each other"),
        (("--only", "report"), "need a published run of 2026-03-08"),
        (("--finish-by", "6:00"), "--finish-by '6:00' is no time of day; write HH:MM"),
        (("--finish-by", "24:00"), "--finish-by '24:00' is no time of day"),
    ],
)
def test_steps_and_times_that_there_are_not(
    config: Callable[..., Path], flags: tuple[str, ...], message: str
) -> None:
    assert message in nightly_fails(2, config(), *flags)


def test_the_deadline_of_the_command_goes_before_that_of_the_file() -> None:
    started = datetime.datetime(2026, 3, 8, 23, 30, tzinfo=datetime.UTC)
    file = Config(plan=Plan(finish_by="06:00", time_zone="Europe/Berlin"))
    given = {
        options: cli_nightly.deadline(night, options, started=started)
        for night, options in ((file, ""), (file, "01:15"))
    }
    assert [str(moment) for moment in given.values()] == [
        "2026-03-09 05:00:00+00:00",
        "2026-03-09 00:15:00+00:00",
    ]
    assert cli_nightly.deadline(Config(), "", started=started) is None


def test_a_time_zone_that_there_is_not_is_2(config: Callable[..., Path]) -> None:
    more = '[plan]\ntime_zone = "Europe/Atlantis"\n'
    assert "'Europe/Atlantis' is no time zone of this machine" in nightly_fails(2, config(more=more))


def test_every_step_that_failed_is_a_line_and_the_first_one_is_the_code(
    config: Callable[..., Path], tmp_path: Path
) -> None:
    more = (
        f'[plan]\ntrain = "{tmp_path}/nosuch.toml"\ntrain_days = ["sunday"]\n[publish_back]\n'
        'url = "http://127.0.0.1:9"\n'
    )
    failed = nightly(config(more=more))
    errors = failed.stderr.splitlines()
    assert [line.startswith("error: ") for line in errors] == [True, True], failed.output
    assert any("nosuch.toml" in line for line in errors)
    assert any("127.0.0.1:9" in line for line in errors)
    assert failed.exit_code == 3
    assert "Published" in failed.stdout  # what was done, was done
    shown = [line.split()[:2] for line in failed.stdout.splitlines() if " failed " in line]
    assert shown == [["train", "failed"], ["publish_back", "failed"]]


def test_a_night_that_is_held_is_6(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = [event(f"question {number} of dune", "dune") for number in range(300)]
    whole = write_lines(tmp_path / "whole.jsonl", log)
    first = nightly(config(log=whole))
    assert first.exit_code == 0, first.output
    other = write_lines(tmp_path / "other.jsonl", log[:3])
    for _ in range(2):  # started again, it is still held
        held = nightly(config(log=other), "--json")
        assert (held.exit_code, len(held.stderr.splitlines())) == (6, 1), held.output
        assert "was held back" in held.stderr
        assert json.loads(held.stdout)["drift"]["verdict"] == "hold"
    run_id = json.loads(held.stdout)["run_id"]
    output = tmp_path / "output"
    shown = call("show", "question 1 of dune", "--run", output, "--run-id", run_id)
    assert (shown.exit_code, f"run {run_id}" in shown.stdout, "held back" in shown.stdout) == (0, True, True)
    served = call("show", "question 1 of dune", "--run", output, "--json")
    assert json.loads(served.stdout)["held"] is False
    assert call("show", "question 1 of dune", "--run", output, "--run-id", "20260308-none").exit_code == 3
    again = call("nightly", "--config", tmp_path / "night.toml", "--run-date", DAY, "--dry-run")
    assert f"run {run_id} is held back, and would be again" in again.stdout
