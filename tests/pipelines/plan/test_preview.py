"""What a night that was reranked would do, said beforehand: the steps that are then run, and no change of any file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.plan import steps
from pipelines.plan.preview import preview
from pipelines.plan.run import Outcome
from rerank_core.config.night import Config
from rerank_core.errors import ConfigError, NightError
from tests.conftest import MakeConfig
from tests.pipelines.plan.conftest import hold_everything, replace_steps, set_steps, start
from tests.support.fakes import fake, forbidden
from tests.support.tiny import DAY


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails(context: Any) -> Any:
    raise NightError("no disk")


def assert_foreseen(config: Config, output: Path, **steps: str) -> Outcome:
    """A night does what its preview says, and the preview writes nothing."""
    before = tree(output)
    found = preview(config, run_date=DAY, load=fake(), **steps)  # type: ignore[arg-type]
    assert tree(output) == before
    assert found
    outcome = start(config, load=forbidden(), **steps)
    assert tuple(step.name for step in found.steps if step.would == "be done") == outcome.ran
    assert all(step.why for step in found.steps if step.would == "be skipped")
    reranked = outcome.record.steps[0]
    assert (found.run_id, found.held) == (reranked.result["run_id"], reranked.state == "held")
    return outcome


@pytest.mark.parametrize("failed", [(), ("train",), ("evaluate",), ("publish_back", "clean_up")])
def test_what_is_left_of_a_night_is_said_beforehand(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: tuple[str, ...]
) -> None:
    config, output = make_config(), tmp_path / "output"
    assert preview(config, run_date=DAY, load=fake()) is None
    set_steps(monkeypatch, **dict.fromkeys(failed, fails))
    start(config)
    set_steps(monkeypatch)
    assert_foreseen(config, output)
    assert assert_foreseen(config, output).ran == ("report",)
    assert "clean_up" in assert_foreseen(make_config(retention={"keep_runs": 9}), output).ran
    moved = (
        step._replace(why_not=lambda _: "", inputs=lambda _: (), run=lambda _: {}, holds=lambda _: False)
        for step in steps.STEPS
        if step.name == "publish_back"
    )
    replace_steps(monkeypatch, moved)
    assert_foreseen(config, output)  # its inputs changed
    assert assert_foreseen(config, output).ran == ("publish_back",)  # the alias was moved


def test_of_real_steps_that_are_not_due(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    start(config)
    assert assert_foreseen(config, tmp_path / "output").ran == ("report",)


def test_steps_that_are_named_are_done_again(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_steps(monkeypatch)
    config = make_config()
    start(config)
    for named in ({"from_step": "publish_back"}, {"only": "evaluate"}):
        ran = assert_foreseen(config, tmp_path / "output", **named).ran
        assert next(iter(named.values())) in ran
    assert preview(config, run_date=DAY, load=fake(), from_step="rerank") is None


def test_steps_without_a_run_or_of_no_name_are_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="need a published run of"):
        preview(make_config(), run_date=DAY, load=fake(), only="report")
    with pytest.raises(ConfigError, match="no step 'tran'"):
        preview(make_config(), run_date=DAY, load=fake(), from_step="tran")


def test_other_inputs_are_a_new_night(make_config: MakeConfig) -> None:
    start(make_config())
    assert preview(make_config(candidates={"top_k": 3}), run_date=DAY, load=fake()) is None
    assert preview(make_config(), run_date=DAY, load=fake("another")) is None


def test_a_held_night_would_be_held_again(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    set_steps(monkeypatch)
    hold_everything(monkeypatch)
    outcome = start(config)
    assert outcome.manifest
    found = preview(config, run_date=DAY, load=fake())
    assert found
    assert (found.run_id, found.held, found.steps) == (outcome.manifest.run_id, True, ())
    assert assert_foreseen(config, tmp_path / "output", from_step="train").ran == ("clean_up", "report")
    assert assert_foreseen(config, tmp_path / "output", only="report").ran == ("report",)
