"""What makes a night the same night, which is not run again."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pipelines.nightly import run as nightly
from pipelines.plan import done, run
from pipelines.plan.context import Context
from pipelines.storage import runs
from pipelines.storage.filesystem import write_bytes
from pipelines.storage.plan_records import plan_path
from rerank_core.errors import (
    ConfigError,
)
from tests.conftest import MakeConfig
from tests.support.clock import FINISH_BY, stand_still
from tests.support.fakes import fake, forbidden
from tests.support.tiny import DAY, GOOD_LOG, Tiny, event, make_config, published_bytes, write_lines

Steps = dict[str, Callable[[Context], Any]]
from tests.pipelines.plan.conftest import ALL, start, states


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
    assert start(operated, load=forbidden()).ran == ("clean_up", "report")  # which has another limit


def test_what_compares_the_inputs_has_the_deadline_of_the_night(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source or a model that never answers does not keep the plan from its end."""
    first = start(make_config())
    clock = stand_still(monkeypatch)

    def prepare(*_: Any, **__: Any) -> NoReturn:
        clock.pass_by(2000)
        threading.Event().wait()
        raise AssertionError

    monkeypatch.setattr(done, "prepare", prepare)
    outcome = start(make_config(), finish_by=FINISH_BY)
    assert not outcome.failures
    assert "rerank" not in outcome.ran  # for which there is no time either
    assert runs.latest(make_config().output.path) == first.manifest


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
