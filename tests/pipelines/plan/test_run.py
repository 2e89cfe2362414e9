"""A night's plan: what is run, skipped, left out and told, over real nights of the tiny corpus by a fake model."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.nightly import run as nightly
from pipelines.plan import done, run, steps
from pipelines.plan.context import Context
from pipelines.plan.run import Outcome, run_plan
from pipelines.storage import runs
from pipelines.storage.filesystem import write_bytes
from pipelines.storage.lock import Lock, holder_of, lock
from pipelines.storage.plan_records import plan_path, read_plan
from rerank_core.errors import (
    ConfigError,
    Locked,
    NightError,
    NightHeld,
    OutputError,
    SourceError,
    TrainingError,
)
from tests.conftest import MakeConfig
from tests.support.fakes import fake, forbidden
from tests.support.killed import Killed
from tests.support.tiny import DAY, GOOD_LOG, Tiny, event, make_config, published_bytes, write_lines

Steps = dict[str, Callable[[Context], Any]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps after reranking, each due and of one line, in the order in which they were run."""
    return set_steps(monkeypatch)


def set_steps(monkeypatch: pytest.MonkeyPatch, **behaviour: Callable[[Context], Any]) -> list[str]:
    ran: list[str] = []

    def make(step: steps.Step) -> steps.Step:
        def work(context: Context) -> dict[str, Any]:
            ran.append(step.name)
            return behaviour[step.name](context) if step.name in behaviour else {"of": context.run.run_id}

        of_a_model = step.name in (
            "train",
            "evaluate",
            "promote",
        )  # they read the training's file, and the registry
        inputs = (lambda _: ()) if of_a_model else step.inputs
        return step._replace(why_not=lambda _: "", inputs=inputs, run=work)

    monkeypatch.setattr(run, "STEPS", tuple(map(make, steps.STEPS)))
    return ran


def states(outcome: Outcome) -> dict[str, str]:
    return {step.name: step.state for step in outcome.record.steps}


def start(config: Any, **options: Any) -> Outcome:
    return run_plan(config, run_date=DAY, load=options.pop("load", fake()), **options)


ALL = ["train", "evaluate", "promote", "report", "publish_back", "clean_up"]


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


# --- what is the same night


def changed_log(tiny: Tiny) -> dict[str, dict[str, Any]]:
    log = write_lines(tiny.folder / "another.jsonl", [*GOOD_LOG, event("foundation novel", "foundation")])
    return {"source": {"log": str(log)}}


CHANGES: dict[str, Callable[[Tiny], dict[str, dict[str, Any]]]] = {
    "log": changed_log,
    "options": lambda _: {"candidates": {"top_k": 3}},
    "labels": lambda _: {"labels": {"min_clicks": 2}},
}


@pytest.mark.parametrize("change", [*CHANGES, "model"])
def test_other_inputs_are_another_night(tiny: Tiny, tmp_path: Path, called: list[str], change: str) -> None:
    first = start(make_config(tiny, tmp_path / "output"))
    called.clear()
    sections = CHANGES[change](tiny) if change in CHANGES else {}
    config = make_config(tiny, tmp_path / "output", **sections)
    second = start(config, load=fake("another" if change == "model" else "fake"))
    assert second.ran == ("rerank", *ALL)  # what comes after is of the new run
    assert second.manifest
    assert second.manifest != first.manifest


def test_what_changes_no_row_is_the_same_night(make_config: MakeConfig, called: list[str]) -> None:
    start(make_config())
    operated = make_config(retention={"keep_runs": 3}, plan={"finish_by": "06:00"}, alerts={"summary": ""})
    assert start(operated, load=forbidden()).ran == ("report", "clean_up")  # which has another limit


def test_a_source_without_fingerprints_is_never_the_same(
    make_config: MakeConfig, called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.sources.local.source import LocalSource

    describe = LocalSource.describe

    def without(self: LocalSource) -> dict[str, Any]:
        return {key: value for key, value in describe(self).items() if key != "index_fingerprint"}

    monkeypatch.setattr(LocalSource, "describe", without)
    first, second = start(make_config()), start(make_config())
    assert "rerank" in second.ran
    assert first.manifest
    assert first.manifest.inputs == ""


@pytest.mark.parametrize(
    "damage", ["a part is gone", "a part is cut", "no manifest", "damaged manifest", "no pointer"]
)
def test_a_run_that_is_not_whole_is_made_anew(
    make_config: MakeConfig, called: list[str], damage: str
) -> None:
    config = make_config(reuse={"enabled": False})
    first = start(config).manifest
    assert first
    output = Path(config.output.path)
    content = published_bytes(output, first)
    folder = output / runs.run_path(first.run_date, first.run_id)
    part = next((folder / "reranked").iterdir())
    if damage == "a part is gone":
        part.unlink()
    elif damage == "a part is cut":
        part.write_bytes(part.read_bytes()[:-1])
    elif damage == "no manifest":
        (folder / runs.MANIFEST).unlink()
    elif damage == "damaged manifest":
        (folder / runs.MANIFEST).write_text("{")
    else:
        (output / runs.POINTER).unlink()
    second = start(config)
    assert "rerank" in second.ran
    assert not second.failures
    assert second.manifest
    assert published_bytes(output, second.manifest) == content


@pytest.mark.parametrize("record", [None, b"{", b'{"run_date": "2026-03-07", "steps": []}'])
def test_the_published_run_is_the_evidence_not_the_record(
    make_config: MakeConfig, called: list[str], record: bytes | None
) -> None:
    config = make_config()
    first = start(config)
    called.clear()
    path = Path(config.output.path, plan_path(str(DAY)))
    path.unlink() if record is None else write_bytes(str(path), record)
    again = start(config, load=forbidden())
    assert "rerank" not in again.ran
    assert called == ALL
    assert states(again) == states(first)


def test_a_run_of_an_older_date_is_the_same_night_though_latest_is_later(
    make_config: MakeConfig, called: list[str]
) -> None:
    config = make_config()
    older = start(config).manifest
    later = nightly.run(config, run_date=DAY.replace(day=9), load=fake())
    assert start(config, load=forbidden()).manifest == older
    assert runs.latest(config.output.path) == later
    moved = start(config, set_latest=True)
    assert "rerank" in moved.ran  # latest.json does not name it yet
    assert runs.latest(config.output.path) == moved.manifest


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
    assert start(config, only="rerank").ran == ("rerank",)


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


def test_the_night_of_an_earlier_date_does_not_take_the_alias_back(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    back: list[str] = []
    publish = next(step for step in steps.STEPS if step.name == "publish_back")
    step = publish._replace(run=lambda context: back.append(context.run.run_date) or {})
    monkeypatch.setattr(run, "STEPS", (step,))
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
    assert ran == ["report", "clean_up"]  # the real report is not due without a run
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


def hold_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.storage.held import hold

    def hold_back(output: str, manifest: Any, *, set_latest: bool = False) -> Any:
        hold(output, manifest)
        raise NightHeld(f"run {manifest.run_id} is held", manifest)

    for name in ("publish", "publish_or_hold"):
        if hasattr(nightly, name):
            monkeypatch.setattr(nightly, name, hold_back)


def test_a_held_night(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.storage.held import release

    config = make_config()
    ran = set_steps(monkeypatch)
    with monkeypatch.context() as patch:
        hold_everything(patch)
        outcome = start(config)
    assert ran == ["report", "clean_up"]
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
    assert (released.failures, ran) == ((), ALL[:-1])  # what was to be cleaned up is the same


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


# --- the lock


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


@pytest.mark.parametrize(("times", "ran"), [(1, ALL), (2, ["train", "report", "publish_back", "clean_up"])])
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


def test_the_model_that_served_is_the_one_that_counts(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promotion in the night itself does not make it another night when it is started again."""
    config = make_config(scoring={"model": "registry:serving"}, registry={"path": "models"})
    run_of_it = nightly.run(make_config(), run_date=DAY, load=fake())
    seen: list[str] = []

    def prepare(config: Any, **options: Any) -> Any:
        seen.append(config.scoring.model)
        raise ConfigError("seen")

    monkeypatch.setattr(done, "prepare", prepare)
    context = Context(config, DAY, run.PlanRecord(str(DAY)))
    for model in (None, {"id": "20260301-abc"}):
        assert not done.has_same_inputs(context, dataclasses.replace(run_of_it, model=model))
    assert seen == ["", "registry:20260301-abc"]


def test_a_night_that_was_killed_while_it_published_is_completed(
    tiny: Tiny, tmp_path: Path, called: list[str]
) -> None:
    """Killed between the run's place and latest.json, the same night is published again, byte for byte."""
    before = tmp_path / "before"
    config = make_config(tiny, tmp_path / "output")
    nightly.run(config, run_date=DAY.replace(day=7), load=fake())
    shutil.copytree(tmp_path / "output", before)
    whole = start(config).manifest
    assert whole
    content = published_bytes(tmp_path / "output", whole)
    shutil.copy(before / runs.POINTER, tmp_path / "output" / runs.POINTER)
    shutil.rmtree(tmp_path / "output" / "_plan")
    again = start(config).manifest
    assert again
    assert again.run_id == whole.run_id
    assert published_bytes(tmp_path / "output", again) == content
