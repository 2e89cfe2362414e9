"""One plan at a time writes to an output folder, and one that lost its lock changes nothing more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.nightly import run as nightly
from pipelines.plan.context import Context
from pipelines.storage import runs
from pipelines.storage.lock import Lock, lock
from pipelines.storage.lock_record import holder_of
from pipelines.storage.plan_records import read_plan
from rerank_core.errors import (
    Locked,
    OutputError,
)
from tests.conftest import MakeConfig
from tests.support.tiny import DAY

Steps = dict[str, Callable[[Context], Any]]
from tests.pipelines.plan.conftest import ALL, set_steps, start, states


def test_a_second_scheduler_changes_nothing(make_config: MakeConfig, called: list[str]) -> None:
    config = make_config()
    with lock(config.output.path, "the other one"):
        with pytest.raises(Locked, match=r"another run \(the other one, process"):
            start(config)
        assert holder_of(f"{config.output.path}/_lock").startswith("the other one, ")
    assert not called
    assert not Path(config.output.path, "_plan").exists()


def test_the_lock_names_the_run_and_is_held_through_all_steps(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    names: list[str] = []

    def look(context: Context) -> dict[str, Any]:
        names.append(holder_of(f"{config.output.path}/_lock"))
        return {}

    set_steps(monkeypatch, **dict.fromkeys(ALL, look))
    manifest = start(config).manifest
    assert manifest
    assert len(names) == len(ALL)
    assert all(name.startswith(f"{manifest.run_id}, process ") for name in names)
    assert holder_of(f"{config.output.path}/_lock") == "unknown"  # nobody


@pytest.mark.parametrize("thief", ["train", "report"])
def test_a_night_whose_lock_was_stolen_stops_before_anything_more(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, thief: str
) -> None:
    config = make_config()

    def steal(context: Context) -> dict[str, Any]:
        Path(context.output, "_lock").unlink()
        return {}

    ran = set_steps(monkeypatch, **{thief: steal})
    with pytest.raises(Locked, match="was taken by another run"):
        start(config)
    assert ran == ALL[: ALL.index(thief) + 1]
    recorded = read_plan(config.output.path, str(DAY))
    assert recorded.step(thief) is None  # the record is the other's now


def test_a_night_whose_lock_was_stolen_while_it_scored_publishes_nothing(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, called: list[str]
) -> None:
    config = make_config()
    verify = nightly.verify

    def steal(*arguments: Any) -> Any:
        Path(config.output.path, "_lock").unlink()
        return verify(*arguments)

    monkeypatch.setattr(nightly, "verify", steal)
    with pytest.raises(Locked, match="was taken by another run"):
        start(config)
    assert not called
    assert runs.latest(config.output.path) is None
    assert not list(Path(config.output.path).glob("runs/*/*"))


@pytest.mark.parametrize(("times", "ran"), [(1, ALL), (2, ["train", "publish_back", "clean_up", "report"])])
def test_a_lock_that_cannot_be_read_for_a_moment_does_not_end_the_night(
    make_config: MakeConfig, called: list[str], monkeypatch: pytest.MonkeyPatch, times: int, ran: list[str]
) -> None:
    """First while the record of the training is written, then before the evaluation."""
    check, failed = Lock.check, []

    def flaky(self: Lock) -> None:
        if called[-1:] == ["train"] and len(failed) < times:
            failed.append(OSError("no answer"))
            raise failed[-1]
        check(self)

    monkeypatch.setattr(Lock, "check", flaky)
    outcome = start(make_config())
    assert called == ran
    assert outcome.failures == tuple(failed)
    assert len(failed) == times


def test_an_output_folder_that_cannot_be_used_is_a_failed_night(
    make_config: MakeConfig, tmp_path: Path, called: list[str]
) -> None:
    (tmp_path / "output").write_text("a file")
    outcome = start(make_config())
    assert isinstance(outcome.failures[0], OutputError)
    assert (states(outcome), called) == ({"rerank": "failed"}, [])


def test_a_record_that_cannot_be_written_fails_the_night_but_not_its_steps(
    make_config: MakeConfig, called: list[str], tmp_path: Path
) -> None:
    config = make_config()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "_plan").symlink_to(tmp_path / "elsewhere")
    outcome = start(config)
    assert called == ALL
    assert "leads out of" in str(outcome.failures[0])
    assert not list((tmp_path / "elsewhere").iterdir())
