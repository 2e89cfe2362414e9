"""From candidate to serving model: good and bad models, restarts after kills at every write, and two at once."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines.nightly.run import run
from pipelines.promotion import steps
from pipelines.promotion.steps import evaluate_candidate, promote_candidate, train_candidate
from pipelines.registry.store import Registry
from pipelines.storage import filesystem
from rerank_core.errors import ConfigError, JudgementError, NightrankError, RegistryError
from tests.pipelines.promotion.conftest import Loop
from tests.support.killed import count_changes, killed
from tests.support.object_store import MemoryFileSystem, each_kill
from tests.support.tiny import DAY
from tests.support.word_models import BAD

DAY_TEXT = DAY.isoformat()


def test_a_good_candidate_is_measured_promoted_and_serves_the_next_night(loop: Loop) -> None:
    entry = loop.registry.add(loop.models["good"])
    measured = evaluate_candidate(loop.config, run_date=DAY)
    assert (measured["model"], measured["serving"], measured["problem"]) == (entry.id, loop.serving, "")
    figures = measured["sets"]["judged"]
    assert figures["candidate"]["nDCG@10"] == 1.0 > figures["serving"]["nDCG@10"]
    assert json.loads(json.dumps(measured)) == measured
    result = promote_candidate(loop.config, run_date=DAY)
    assert result["promoted"], result["reason"]
    assert (result["model"], result["previous"], result["decision"]) == (entry.id, loop.serving, 2)
    assert len(result["checks"]) == 8
    assert json.loads(json.dumps(result)) == result
    (logged,) = loop.registry.decisions()[1:]
    assert [dict(check) for check in logged.checks] == result["checks"]
    night = run(loop.config, run_date=DAY)
    assert night.model
    assert (night.model["id"], night.model["state"]) == (entry.id, "serving")
    assert night.balance.pairs["reused"] == 0
    # a step that is started again says the same
    assert promote_candidate(loop.config, run_date=DAY) == result


REASONS = {
    "shuffled": "nDCG@10 on judged is",
    "reversed": "the order of its labels may be the wrong one",
    "constant": "nearly every passage the same score",
    "tags alone": "the shortcut gap on judged is",
    "slow": "times the time a pair; at most 4 is accepted",
    "nan": "could not score 16 of 192 pairs",
    "overconfident": "the calibration error on judged is",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_candidate_is_rejected_with_its_reason(loop: Loop, name: str) -> None:
    entry = loop.registry.add(loop.models[name])
    result = promote_candidate(loop.config, run_date=DAY)
    assert not result["promoted"]
    assert REASONS[name] in result["reason"]
    after = loop.registry.entry(entry.id)
    assert (after.state, after.history[-1].reason) == ("retired", result["reason"])
    serving = loop.registry.serving()
    assert serving
    assert serving.id == loop.serving
    assert loop.registry.decisions()[-1].action == "rejected"
    assert promote_candidate(loop.config, run_date=DAY) == result


@pytest.mark.parametrize("damage", ["onnx/model.onnx", "tokenizer.json", "config.json", "calibration.json"])
@pytest.mark.parametrize("in_registry", [True, False])
def test_a_candidate_that_cannot_be_opened_is_rejected(
    loop: Loop, tmp_path: Path, damage: str, in_registry: bool
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(loop.models["good"], folder)
    if damage == "calibration.json":
        (folder / damage).write_text("{}")
    if not in_registry:
        (folder / damage).write_bytes(b"\0broken")
    entry = loop.registry.add(folder)
    if in_registry:
        Path(loop.registry.model_path(entry.id), damage).write_bytes(b"\0broken")
    result = promote_candidate(loop.config, run_date=DAY)
    assert not result["promoted"]
    assert result["reason"].startswith("the candidate cannot be used: ")
    assert (damage in result["reason"]) or "broken" in result["reason"]
    assert loop.registry.entry(entry.id).state == "retired"


def test_without_judged_sets_nothing_is_promoted_unseen_but_by_force(loop: Loop) -> None:
    entry = loop.registry.add(loop.models["good"])
    config = loop.changed(promotion={"judged_sets": ()})
    result = promote_candidate(config, run_date=DAY)
    assert not result["promoted"]
    assert "never promoted unseen" in result["reason"]
    assert loop.registry.entry(entry.id).state == "candidate", "it may be decided once there is a set"
    dry = promote_candidate(config, run_date=DAY, force=True, reason="I looked at it", dry_run=True)
    assert (dry["promoted"], loop.registry.entry(entry.id).state) == (True, "candidate")
    forced = promote_candidate(config, run_date=DAY, force=True, reason="I looked at it")
    assert (forced["promoted"], forced["forced"], forced["reason"]) == (True, True, "I looked at it")
    assert loop.registry.entry(entry.id).state == "serving"
    loop.registry.rollback(reason="I looked again")
    assert promote_candidate(config, run_date=DAY) == {"skipped": steps.NOTHING}, "it serves no longer"


def test_a_missing_set_is_no_fault_of_the_candidate(loop: Loop, tmp_path: Path) -> None:
    entry = loop.registry.add(loop.models["good"])
    with pytest.raises((JudgementError, NightrankError)):
        promote_candidate(loop.changed(promotion={"judged_sets": (str(tmp_path / "none"),)}), run_date=DAY)
    assert loop.registry.entry(entry.id).state == "candidate"


def test_without_a_candidate_or_a_registry_there_is_nothing_to_do(loop: Loop) -> None:
    assert "no candidate" in evaluate_candidate(loop.config, run_date=DAY)["skipped"]
    assert "no candidate" in promote_candidate(loop.config, run_date=DAY)["skipped"]
    assert "names no training" in train_candidate(loop.config, run_date=DAY)["skipped"]
    config = loop.changed(registry={"path": ""})
    with pytest.raises(ConfigError, match=r"registry\.path is not set"):
        promote_candidate(config, run_date=DAY)


def test_a_dry_run_changes_nothing(loop: Loop) -> None:
    entry = loop.registry.add(loop.models["good"])
    before = filesystem.listing(loop.registry.path).keys()
    result = promote_candidate(loop.config, run_date=DAY, dry_run=True)
    assert (result["promoted"], result["dry_run"], result["model"]) == (True, True, entry.id)
    assert filesystem.listing(loop.registry.path).keys() == before


def test_the_newest_candidate_is_decided_and_older_ones_retire(loop: Loop) -> None:
    older = loop.registry.add(loop.models["another"])
    newer = loop.registry.add(loop.models["good"])
    result = promote_candidate(loop.config, run_date=DAY)
    assert result["model"] == newer.id
    assert loop.registry.entry(older.id).history[-1].reason.startswith(f"{newer.id}, a newer candidate")
    assert [d.action for d in loop.registry.decisions()] == ["promoted", "retired", "promoted"]


def test_a_named_model_is_decided_alone(loop: Loop) -> None:
    older = loop.registry.add(loop.models["another"])
    newer = loop.registry.add(loop.models["good"])
    assert promote_candidate(loop.config, run_date=DAY, model=older.id)["promoted"]
    assert loop.registry.entry(newer.id).state == "candidate"
    # one that served before can be measured again, and serves again or not
    again = promote_candidate(loop.config, run_date=DAY, model=loop.serving)
    assert not again["promoted"]
    assert loop.registry.entry(loop.serving).state == "retired"


def test_what_is_measured_is_not_measured_again_until_something_changes(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = steps.measure
    monkeypatch.setattr(steps, "measure", lambda *args, **options: calls.append(1) or real(*args, **options))
    loop.registry.add(loop.models["good"])
    first = evaluate_candidate(loop.config, run_date=DAY)
    assert evaluate_candidate(loop.config, run_date=DAY) == first
    assert len(calls) == 1
    evaluate_candidate(loop.changed(promotion={"max_queries": 12}), run_date=DAY)
    assert len(calls) == 2
    judged = Path(loop.config.promotion.judged_sets[0], "qrels", f"{loop.config.promotion.split}.tsv")
    judged.write_text("".join(judged.read_text().splitlines(keepends=True)[:-1]))
    evaluate_candidate(loop.changed(promotion={"max_queries": 12}), run_date=DAY)
    assert len(calls) == 3
    path = next(Path(loop.registry.path, "evaluations").iterdir())
    path.write_text("{}")
    assert promote_candidate(loop.config, run_date=DAY)["promoted"]
    assert len(calls) == 4


def test_a_candidate_measured_against_another_model_is_not_promoted(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = loop.registry.add(loop.models["another"])
    entry = loop.registry.add(loop.models["good"])
    real = steps.decide

    def decide(*args: Any) -> Any:
        loop.registry.promote(other.id, reason="by another", forced=True)
        return real(*args)

    monkeypatch.setattr(steps, "decide", decide)
    with pytest.raises(RegistryError, match="serves now; start the promotion again"):
        promote_candidate(loop.config, run_date=DAY)
    assert loop.registry.entry(entry.id).state == "candidate"


def test_two_promotions_at_once_end_in_one_decision(loop: Loop) -> None:
    loop.registry.add(loop.models["good"])
    results: list[Any] = []

    def promote() -> None:
        try:
            results.append(promote_candidate(loop.config, run_date=DAY)["promoted"])
        except NightrankError as error:
            results.append(type(error).__name__)

    threads = [threading.Thread(target=promote) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) in (
        {True},
        {True, "Locked"},
    )  # one promotes; the other finds the lock or the decision
    assert [d.action for d in loop.registry.decisions()] == ["promoted", "promoted"]


def final_state(registry: Registry) -> dict[str, Any]:
    serving = registry.serving()
    return {
        "states": {entry.id: entry.state for entry in registry.entries()},
        "serving": serving.id if serving else "",
        "decisions": [(d.number, d.action, d.model, d.previous) for d in registry.decisions()],
    }


@pytest.mark.parametrize("name", ["good", "constant"])
def test_killed_at_any_write_the_steps_end_in_the_same_state(
    loop: Loop, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.registry.add(loop.models["another"])
    loop.registry.add(loop.models[name])
    real, known = steps.measure, {}

    def measure(*args: Any, **options: Any) -> Any:  # the same models are measured once
        if not known:
            known["found"] = real(*args, **options)
        return known["found"]

    monkeypatch.setattr(steps, "measure", measure)
    whole = tmp_path / "whole"
    shutil.copytree(loop.registry.path, whole)
    wanted = None
    for step in itertools.count():
        shutil.rmtree(loop.registry.path)
        shutil.copytree(whole, loop.registry.path)
        with killed(Path(loop.registry.path), at=step):
            evaluate_candidate(loop.config, run_date=DAY)
            promote_candidate(loop.config, run_date=DAY)
        done = step >= count_changes()
        assert list(final_state(loop.registry)["states"].values()).count("serving") == 1
        evaluate_candidate(loop.config, run_date=DAY)
        result = promote_candidate(loop.config, run_date=DAY)
        wanted = wanted or (final_state(loop.registry), result)
        assert (final_state(loop.registry), result) == wanted
        if done:
            break
    assert step > 10


def test_killed_at_any_write_of_an_object_store_too(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    MemoryFileSystem.objects.clear()
    registry = Registry("mem://bucket/registry")
    config = loop.changed(registry={"path": registry.path})
    registry.promote(registry.add(loop.models["serving"]).id, reason="the first")
    registry.add(loop.models["another"])
    registry.add(loop.models["good"])
    real, known = steps.measure, {}

    def measure(*args: Any, **options: Any) -> Any:
        if not known:
            known["found"] = real(*args, **options)
        return known["found"]

    monkeypatch.setattr(steps, "measure", measure)
    wanted = None
    for _finished in each_kill(lambda: promote_candidate(config, run_date=DAY)):
        assert list(final_state(registry)["states"].values()).count("serving") == 1
        result = promote_candidate(config, run_date=DAY)
        wanted = wanted or (final_state(registry), result)
        assert (final_state(registry), result) == wanted
    MemoryFileSystem.objects.clear()


def test_a_night_that_does_not_train_imports_no_torch() -> None:
    code = (
        "import sys, pipelines.promotion.steps, pipelines.registry.resolve, pipelines.nightly.run\n"
        "print([m for m in ('torch', 'transformers', 'rerank_core.training.finetune') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_are_plain_data_without_texts(loop: Loop) -> None:
    loop.registry.add(loop.models["good"])
    promote_candidate(loop.config, run_date=DAY)
    stored = "".join(
        path.read_text() for path in Path(loop.registry.path).rglob("*.json") if "model" not in path.parts
    )
    assert "floods" not in stored
    assert dataclasses.asdict(loop.registry.decisions()[-1])["run_date"] == DAY_TEXT
