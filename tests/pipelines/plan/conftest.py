"""Nights whose further steps are of one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pipelines.nightly import run as nightly
from pipelines.plan import preview, run, steps
from pipelines.plan.context import Context
from pipelines.plan.run import Outcome, run_plan
from rerank_core.errors import NightHeld
from tests.support.fakes import fake
from tests.support.tiny import DAY

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
        return step._replace(why_not=lambda _: "", inputs=inputs, run=work, holds=lambda _: True)

    replace_steps(monkeypatch, map(make, steps.STEPS))
    return ran


def replace_steps(monkeypatch: pytest.MonkeyPatch, replaced: Iterable[steps.Step]) -> None:
    found = tuple(replaced)
    for module in (run, preview):
        monkeypatch.setattr(module, "STEPS", found)


def hold_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.storage.held import hold

    def hold_back(output: str, manifest: Any, *, set_latest: bool = False) -> Any:
        hold(output, manifest)
        raise NightHeld(f"run {manifest.run_id} is held", manifest)

    for name in ("publish", "publish_or_hold"):
        if hasattr(nightly, name):
            monkeypatch.setattr(nightly, name, hold_back)


def states(outcome: Outcome) -> dict[str, str]:
    return {step.name: step.state for step in outcome.record.steps}


def start(config: Any, **options: Any) -> Outcome:
    return run_plan(config, run_date=DAY, load=options.pop("load", fake()), **options)


ALL = ["train", "evaluate", "promote", "publish_back", "clean_up", "report"]
