"""A night's plan: what is run, skipped, left out and reported, over real nights of the tiny corpus by a fake model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.plan import run, steps
from pipelines.plan.context import Context
from pipelines.plan.run import run_plan
from pipelines.storage import runs
from pipelines.storage.plan_records import read_plan
from rerank_core.errors import (
    ConfigError,
    NightError,
    NightHeld,
    SourceError,
    TrainingError,
)
from tests.conftest import MakeConfig
from tests.support.fakes import fake, forbidden
from tests.support.killed import Killed
from tests.support.tiny import DAY

Steps = dict[str, Callable[[Context], Any]]
from tests.pipelines.plan.conftest import ALL, hold_everything, set_steps, start, states


def test_a_night_is_all_steps_once(make_config: MakeConfig, called: list[str]) -> None:
    config = make_config()
    first = start(config)
    assert (called, first.ran, first.failures) == (ALL, ("rerank", *ALL), ())
    assert set(states(first).values()) == {"done"}
    assert first.manifest
    assert runs.latest(config.output.path) == first.manifest
    assert read_plan(config.output.path, str(DAY)) == first.record
    called.clear()
    again = start(config, load=forbidden())
    assert (called, again.ran) == (["report"], ("report",))  # which costs little, and shows the others
    assert again.manifest == first.manifest
    changed = {step.name for step in again.record.steps if step not in first.record.steps}
    assert changed <= {"report"}


def test_without_its_keys_a_night_is_reranking_and_its_report(make_config: MakeConfig) -> None:
    outcome = start(make_config())
    assert not outcome.failures
    assert {name for name, state in states(outcome).items() if state == "done"} <= {"rerank", "report"}
    assert all(step.reason for step in outcome.record.steps if step.state == "not_due")


# --- parts of the plan


def test_from_a_step_on(make_config: MakeConfig, called: list[str]) -> None:
    config = make_config()
    start(config)
    called.clear()
    assert start(config, from_step="promote", load=forbidden()).ran == tuple(ALL[2:])
    called.clear()
    again = start(config, from_step="rerank", load=fake())
    assert again.ran == ("rerank", *ALL)


def test_one_step_alone(make_config: MakeConfig, called: list[str]) -> None:
    config = make_config()
    first = start(config)
    called.clear()
    only = start(config, only="report", load=forbidden())
    assert (only.ran, called) == (("report",), ["report"])
    assert states(only) == states(first)
    assert start(config, only="rerank").ran == ("rerank", "report")  # which tells of what was run


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"from_step": "mine"}, "no step 'mine'; the steps are rerank, train"),
        ({"only": "x"}, "no step 'x'"),
        ({"only": "report", "from_step": "train"}, "exclude each other"),
        ({"only": "report"}, "need a published run of 2026-03-08"),
        ({"from_step": "train"}, "need a published run of 2026-03-08"),
    ],
)
def test_parts_that_cannot_be_run(
    make_config: MakeConfig, called: list[str], options: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        start(make_config(), **options)
    assert not called


def test_a_step_alone_whose_need_was_not_met(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    start(config)
    set_steps(monkeypatch)
    with pytest.raises(
        ConfigError, match="promote cannot be run alone: evaluate was not due; use --from-step"
    ):
        start(config, only="promote")


def publish_to_a_list(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let publish_back be the only step after reranking, and an alias the last of these dates."""
    back: list[str] = []
    publish = next(step for step in steps.STEPS if step.name == "publish_back")
    step = publish._replace(
        run=lambda context: back.append(context.run.run_date) or {},
        holds=lambda context: back[-1] == context.run.run_date,
    )
    monkeypatch.setattr(run, "STEPS", (step,))
    return back


def test_the_alias_follows_what_is_served_back_and_forth(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = publish_to_a_list(monkeypatch)
    config, days = make_config(publish_back={"url": "http://localhost:1"}), (DAY, DAY.replace(day=9))
    for day in (*days, *days, days[1]):
        outcome = run_plan(config, run_date=day, load=fake(), set_latest=True)
        latest = runs.latest(config.output.path)
        assert latest
        assert (back[-1], latest.run_date, outcome.failures) == (str(day), str(day), ())
    assert back == [*map(str, days), *map(str, days)], "the last one was done already"


def test_the_night_of_an_earlier_date_does_not_take_the_alias_back(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = publish_to_a_list(monkeypatch)
    config = make_config(publish_back={"url": "http://localhost:1"})
    later = DAY.replace(day=9)
    run_plan(config, run_date=later, load=fake())
    earlier = start(config)
    assert earlier.record.steps[-1].state == "not_due"
    assert "latest.json names run 20260309-" in earlier.record.steps[-1].reason
    assert back == ["2026-03-09"]
    assert start(config, only="publish_back").ran == ("publish_back",)  # who says so means it
    assert back == ["2026-03-09", "2026-03-08"]


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ({}, "plan.train is not set"),
        (
            {"train": "t.toml", "train_days": ["monday"]},
            "2026-03-08 is a Sunday, and plan.train_days are monday",
        ),
        ({"train": "t.toml"}, ""),
    ],
)
def test_the_days_of_training(make_config: MakeConfig, plan: dict[str, Any], why: str) -> None:
    context = Context(make_config(plan=plan), DAY, run.PlanRecord(str(DAY)))
    step = next(step for step in steps.STEPS if step.name == "train")
    assert step.why_not(context) == why


# --- failures


def fails_with(error: BaseException) -> Callable[[Context], Any]:
    def fail(_: Context) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("failing", "left_out", "code"),
    [
        ("train", set(), 5),  # another candidate may wait
        ("evaluate", {"promote"}, 5),
        ("promote", set(), 5),
        ("report", set(), 5),
        ("publish_back", set(), 5),
        ("clean_up", set(), 0),
    ],
)
def test_a_failed_step_and_what_needs_it(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, failing: str, left_out: set[str], code: int
) -> None:
    config = make_config()
    ran = set_steps(monkeypatch, **{failing: fails_with(TrainingError("it cannot go on; change the data"))})
    outcome = start(config)
    assert set(ran) == set(ALL) - left_out
    step = outcome.record.step(failing)
    assert step
    assert (step.state, step.reason) == ("failed", "it cannot go on; change the data")
    assert {name for name, state in states(outcome).items() if state == "not_due"} == left_out
    assert [error.exit_code for error in outcome.failures] == ([code] if code else [])  # type: ignore[attr-defined]
    # Started again, the failed step is tried again, and what needs it follows.
    ran = set_steps(monkeypatch)
    again = start(config, load=forbidden())
    assert set(ran) == {failing, "report"} | left_out
    assert set(states(again).values()) == {"done"}


def test_a_night_that_cannot_be_reranked(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = set_steps(monkeypatch, clean_up=lambda _: {}, report=lambda _: {})
    outcome = start(make_config(source={"log": str(tmp_path / "nosuch.jsonl")}))
    assert ran == ["clean_up", "report"]  # the real report is not due without a run
    assert isinstance(outcome.failures[0], SourceError)
    not_due = {name for name, state in states(outcome).items() if state == "not_due"}
    assert not_due == {"train", "evaluate", "promote", "publish_back"}
    assert outcome.manifest is None


def test_the_first_failure_decides_and_a_defect_is_one_too(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_steps(
        monkeypatch,
        promote=fails_with(KeyError("a secret")),
        publish_back=fails_with(NightError("no cluster")),
    )
    outcome = start(make_config())
    assert [type(error) for error in outcome.failures] == [KeyError, NightError]
    promote = outcome.record.step("promote")
    assert promote
    assert promote.reason == "a defect: KeyError; the traceback was printed"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Killed(), SystemExit(3)])
def test_the_end_of_the_process_is_no_failure_of_a_step(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    config = make_config()
    ran = set_steps(monkeypatch, evaluate=fails_with(error))
    with pytest.raises(type(error)):
        start(config)
    assert ran == ["train", "evaluate"]
    assert [step.name for step in read_plan(config.output.path, str(DAY)).steps] == ["rerank", "train"]
    ran = set_steps(monkeypatch)
    assert start(config, load=forbidden()).ran == tuple(ALL[1:])


def test_what_beam_makes_of_an_interrupt_is_no_failure_either(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = set_steps(monkeypatch, train=fails_with(RuntimeError("KeyboardInterrupt [while running 'Score']")))
    with pytest.raises(RuntimeError):
        start(make_config(), interrupted=lambda: ran == ["train"])
    assert ran == ["train"]


# --- a night that is held


def test_a_held_night(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.storage.held import release

    config = make_config()
    ran = set_steps(monkeypatch)
    with monkeypatch.context() as patch:
        hold_everything(patch)
        outcome = start(config)
    assert ran == ["clean_up", "report"]
    assert states(outcome)["rerank"] == "held"
    assert [type(error) for error in outcome.failures] == [NightHeld]
    assert outcome.manifest
    run_id = outcome.manifest.run_id
    assert runs.latest(config.output.path) is None
    # Started again, nothing is reranked: it is still held, and says so.
    again = start(config, load=forbidden())
    assert str(again.failures[0]) == f"run {run_id} is held"
    assert again.manifest
    assert again.manifest.run_id == run_id
    # Once a person has released it, the night goes on.
    ran.clear()
    release(config.output.path, run_id)
    released = start(config, load=forbidden())
    assert released.failures == ()
    assert ran == [name for name in ALL if name != "clean_up"]  # what was to be cleaned up is the same


def test_steps_of_a_held_night(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are about the held run, under other limits too, and about the published one once it was released."""
    from pipelines.storage.held import release

    config = make_config()
    set_steps(monkeypatch)
    with monkeypatch.context() as patch:
        hold_everything(patch)
        held = start(config).manifest
    assert held
    other = dataclasses.replace(
        config, drift=dataclasses.replace(config.drift, enabled=not config.drift.enabled)
    )
    alone = start(other, only="report", load=forbidden())
    assert alone.manifest
    assert (alone.manifest.run_id, states(alone)["rerank"]) == (held.run_id, "held")
    released = release(config.output.path, held.run_id)
    for options in ({"only": "report"}, {"from_step": "train"}):
        after = start(config, load=forbidden(), **options)
        assert (after.manifest, states(after)["rerank"], after.failures) == (released, "done", ())
