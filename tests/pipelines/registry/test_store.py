"""The registry on a disk and in an object store: what is added, which model serves, and kills at every change."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.registry import decisions, store
from pipelines.registry.entry import Lineage, Parent, Pointer, TrainedOn
from pipelines.registry.model_files import files_fingerprint, model_files
from pipelines.registry.store import Registry
from pipelines.storage import filesystem, lock
from rerank_core.errors import Locked, RegistryError
from tests.support.killed import Killed, count_changes, killed
from tests.support.object_store import MemoryFileSystem

LINEAGE = Lineage(
    runs=(TrainedOn("out", "20260308-abc", "2026-03-08"), TrainedOn("out", "20260307-abd")),
    training={"seed": 7},
    parent=Parent("base"),
    figures=({"stage": "one", "nDCG@10": 0.5},),
    run_date="2026-03-08",
)


def states(registry: Registry) -> dict[str, str]:
    return {entry.id: entry.state for entry in registry.entries()}


def test_a_model_is_added_whole_with_its_lineage(registry: Registry, models: list[Path]) -> None:
    assert (registry.entries(), registry.serving(), registry.decisions()) == ([], None, [])
    entry = registry.add(models[0], LINEAGE)
    assert registry.entries() == [entry]
    assert registry.entry(entry.id) == entry
    assert (entry.lineage, entry.state) == (LINEAGE, "candidate")
    assert entry.fingerprint == files_fingerprint(model_files(models[0]))
    assert entry.id == f"{entry.created[:10].replace('-', '')}-{entry.fingerprint[:12]}"
    for name, file in entry.files.items():
        stored = filesystem.read_bytes(filesystem.join(registry.model_path(entry.id), name))
        assert stored == (models[0] / name).read_bytes()
        assert len(stored) == file.bytes
    assert registry.lineage_runs().keys() == {"20260308-abc", "20260307-abd"}


def test_equal_files_are_one_model(registry: Registry, models: list[Path], tmp_path: Path) -> None:
    entry = registry.add(models[0], LINEAGE)
    shutil.copytree(models[0], tmp_path / "copy")
    assert registry.add(tmp_path / "copy") == entry
    (tmp_path / "copy" / "calibration.json").write_text('{"scale": 2.0, "shift": 0.0, "knots": []}')
    assert registry.add(tmp_path / "copy").id != entry.id


def test_one_model_serves_and_its_history_says_since_when(registry: Registry, models: list[Path]) -> None:
    one, two, three = (registry.add(folder).id for folder in models)
    registry.promote(one, reason="better", checks=[{"name": "quality"}], run_date="2026-03-08")
    assert states(registry) == {one: "serving", two: "candidate", three: "candidate"}
    registry.promote(two, reason="by hand", forced=True)
    assert states(registry) == {one: "retired", two: "serving", three: "candidate"}
    registry.decide("rejected", three, reason="worse")
    assert states(registry) == {one: "retired", two: "serving", three: "retired"}
    assert registry.rollback(reason="it was slow").model == one
    assert states(registry) == {one: "serving", two: "retired", three: "retired"}
    serving = registry.serving()
    assert serving
    assert [change.state for change in serving.history] == ["candidate", "serving"]  # as the pointer knows it
    history = registry.entry(one).history
    assert [change.state for change in history] == ["candidate", "serving", "retired", "serving"]
    assert history[-1] == serving.history[-1]
    reasons = [change.reason for change in registry.entry(two).history]
    assert reasons == ["", "by hand", f"{one} serves in its place"]
    assert [(d.number, d.action, d.model, d.previous) for d in registry.decisions()] == [
        (1, "promoted", one, ""),
        (2, "promoted", two, one),
        (3, "rejected", three, ""),
        (4, "rolled_back", one, two),
    ]


def test_one_goes_back_as_far_as_the_model_that_ships(registry: Registry, models: list[Path]) -> None:
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback(reason="none")
    one, two = (registry.add(folder).id for folder in models[:2])
    registry.promote(one, reason="a")
    registry.promote(two, reason="b")
    assert [registry.rollback(reason="c").model for _ in range(2)] == [one, ""]
    assert registry.serving() is None
    assert states(registry) == {one: "retired", two: "retired"}
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback(reason="none")
    registry.promote(two, reason="again")
    assert registry.rollback(reason="and back").model == ""


def test_one_goes_back_past_a_model_that_was_removed(registry: Registry, models: list[Path]) -> None:
    one, two, three = (registry.add(folder).id for folder in models)
    for model in (one, two, three):
        registry.promote(model, reason="better")
    registry.remove(one)
    assert [registry.rollback(reason="c").model for _ in range(2)] == [two, ""]


def test_a_decision_is_made_once(registry: Registry, models: list[Path]) -> None:
    one, two = (registry.add(folder).id for folder in models[:2])
    first = registry.promote(one, reason="a")
    assert registry.promote(one, reason="again") == first
    rejected = registry.decide("rejected", two, reason="worse")
    assert registry.decide("rejected", two, reason="worse") == rejected
    with pytest.raises(RegistryError, match="serves, and cannot be rejected"):
        registry.decide("rejected", one, reason="it serves")
    assert registry.decisions() == [first, rejected]


def test_only_a_retired_model_is_removed(registry: Registry, models: list[Path]) -> None:
    one, two = (registry.add(folder, LINEAGE).id for folder in models[:2])
    registry.promote(one, reason="a")
    registry.promote(two, reason="b")
    for model, why in ((two, "serving"), (one, "the one to go back to")):
        with pytest.raises(RegistryError, match=why):
            registry.remove(model)
    registry.rollback(reason="c")
    registry.remove(two)
    assert states(registry) == {one: "serving"}
    assert not filesystem.listing(registry.model_path(two))
    assert registry.decisions()[-1].action == "removed"
    assert registry.lineage_runs().keys() == {run.run_id for run in LINEAGE.runs}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"id": 7}', b"\xff"])
@pytest.mark.parametrize("name", ["serving.json", "entry"])
def test_a_damaged_file_is_one_clear_error(
    registry: Registry, models: list[Path], name: str, damage: bytes
) -> None:
    entry = registry.add(models[0])
    path = filesystem.join(registry.path, f"models/{entry.id}/entry.json" if name == "entry" else name)
    filesystem.write_bytes(path, damage)
    with pytest.raises(RegistryError, match=r"is no file of a registry, or is damaged \(.*\); ") as caught:
        registry.entries()
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"{", b"{}", b"\xff"])
def test_a_damaged_decision_stops_nothing_and_changes_no_state(
    registry: Registry, models: list[Path], damage: bytes
) -> None:
    """Its name says what it decided; the pointer has its own copy of the newest one that changed it."""
    one, two, three = (registry.add(folder).id for folder in models[:3])
    registry.promote(one, reason="first")
    registry.decide("rejected", two, reason="worse")
    made = registry.promote(three, reason="better")
    serving, before, listed = registry.serving(), states(registry), registry.decisions()
    folder = filesystem.join(registry.path, "decisions")
    paths = filesystem.files(folder, "*.json")
    for path in paths:
        filesystem.write_bytes(path, damage)
    filesystem.write_bytes(filesystem.join(folder, "notes.json"), b"of a person")
    assert (registry.serving(), states(registry), registry.candidates()) == (serving, before, [])
    log = registry.log()
    assert [(d.number, d.action, d.model) for d in log.made] == [
        (d.number, d.action, d.model) for d in listed
    ]
    assert log.made[-1] == made
    assert [line.partition(" ")[0] for line in log.problems] == paths
    assert all(line.endswith("remove it: it is a record, which no night needs") for line in log.problems)
    assert registry.rollback(reason="slow").number == 4
    assert registry.decide("rejected", two, reason="worse").number == 5


def test_a_night_reads_no_decision_to_find_the_model_that_serves_and_the_candidates(
    registry: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (registry.add(folder).id for folder in models[:2])
    registry.promote(one, reason="first")
    monkeypatch.setattr(decisions, "read", lambda *_, **__: pytest.fail("a decision was read"))
    serving = registry.serving()
    assert serving
    assert (serving.id, serving.state, serving.history[-1].reason) == (one, "serving", "first")
    assert [entry.id for entry in registry.candidates()] == [two]


def test_decisions_since_a_time_are_read_from_the_newest_back(
    registry: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (registry.add(folder).id for folder in models[:2])
    times = iter(f"2026-03-0{day}T01:00:00.000+00:00" for day in range(1, 10))
    monkeypatch.setattr(store, "_now", lambda: next(times))
    for model in (one, two, one, two):
        registry.promote(model, reason="in turns")
    real, seen = filesystem.read_bytes, list[str]()
    monkeypatch.setattr(filesystem, "read_bytes", lambda path: (seen.append(path), real(path))[1])
    assert [decision.number for decision in registry.decisions(since="2026-03-03")] == [3, 4]
    assert sum("/decisions/" in path for path in seen) == 3


def test_an_entry_of_another_model_is_refused(registry: Registry, models: list[Path]) -> None:
    one, two = (registry.add(folder).id for folder in models[:2])
    path = filesystem.join(registry.path, "models", one, "entry.json")
    filesystem.write_bytes(
        path, filesystem.read_bytes(filesystem.join(registry.path, "models", two, "entry.json"))
    )
    with pytest.raises(RegistryError, match=f"is the entry of another model, {two}"):
        registry.entries()


def test_two_that_change_it_at_once_do_not_mix(
    registry: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _one, two = (registry.add(folder).id for folder in models[:2])
    with registry._locked("promote") as held:
        # the heartbeat of the one that holds it, while the other watches
        monkeypatch.setattr(lock, "TIMING", lock.Timing(sleep=lambda seconds: held.beat()))
        with pytest.raises(Locked):
            Registry(registry.path).promote(two, reason="at the same moment")


def test_one_whose_lock_was_taken_changes_nothing(registry: Registry, models: list[Path]) -> None:
    one, two = (registry.add(folder).id for folder in models[:2])
    registry.promote(one, reason="first")
    with registry._locked("promote") as held:
        filesystem.remove(held.path)
        with pytest.raises(Locked):
            registry._point(held, None, Pointer(two, (), registry._decision("promoted", two, "late")))
    serving = registry.serving()
    assert serving
    assert serving.id == one


def test_an_addition_whose_lock_was_taken_is_not_there(
    registry: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, path = filesystem.transfer, filesystem.join(registry.path, "_lock")

    def transfer(source: str, target: str) -> None:
        real(source, target)
        if filesystem.exists(path):
            filesystem.remove(path)

    monkeypatch.setattr(filesystem, "transfer", transfer)
    with pytest.raises(Locked):
        registry.add(models[0])
    assert registry.entries() == []


def test_a_later_one_goes_on(registry: Registry, models: list[Path]) -> None:
    one, two = (registry.add(folder).id for folder in models[:2])
    registry.promote(one, reason="later")
    assert states(registry) == {one: "serving", two: "candidate"}


# --- kills at every change


def killed_at_each(
    registry: Registry, folder: Path, prepare: Callable[[], None], change: Callable[[], object]
) -> Iterator[int]:
    """Runs `change` anew, killed at its first change of a file, its second, and so on; the last time it is not."""
    remote = not filesystem.is_local(registry.path)
    for step in itertools.count():
        MemoryFileSystem.objects.clear()
        shutil.rmtree(registry.path, ignore_errors=True)
        prepare()
        if remote:
            steps = iter(range(sys.maxsize))

            def before(steps: Iterator[int] = steps, step: int = step) -> None:
                if next(steps) >= step:
                    raise Killed

            MemoryFileSystem.before = before
            try:
                change()
                done = True
            except Killed:
                done = False
            MemoryFileSystem.before = None
            # a lock that was left on an object store is removed by hand, or expires
            for path in [
                path for path in MemoryFileSystem.objects if path.rpartition("/")[2].startswith("_lock")
            ]:
                del MemoryFileSystem.objects[path]
        else:
            with killed(folder, at=step):
                change()
            done = step >= count_changes()
        yield step
        if done:
            return


def test_killed_at_any_change_an_addition_is_whole_or_not_there(
    registry: Registry, models: list[Path], tmp_path: Path
) -> None:
    outcomes = set()
    steps = killed_at_each(
        registry, tmp_path / "registry", lambda: None, lambda: registry.add(models[0], LINEAGE)
    )
    for _step in steps:
        found = registry.entries()
        outcomes.add(len(found))
        entry = registry.add(models[0], LINEAGE)
        assert registry.entries() == [entry]
        assert found in ([], [entry])
        assert model_files(models[0]) == entry.files
        paths = {
            name
            for name in filesystem.listing(registry.path)
            if "_lock" not in name and not filesystem.is_temporary(name)
        }
        assert paths == {
            f"models/{entry.id}/{n}" for n in ("entry.json", *(f"model/{f}" for f in entry.files))
        }
    assert outcomes == {0, 1}


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_killed_at_any_change_one_model_serves(
    registry: Registry, models: list[Path], tmp_path: Path, action: str
) -> None:
    ids: list[str] = []

    def prepare() -> None:
        ids[:] = [registry.add(folder).id for folder in models[:2]]
        registry.promote(ids[0], reason="first")
        if action == "rollback":
            registry.promote(ids[1], reason="second")

    def change() -> object:
        return (
            registry.promote(ids[1], reason="second")
            if action == "promote"
            else registry.rollback(reason="back")
        )

    outcomes = set()
    for _step in killed_at_each(registry, tmp_path / "registry", prepare, change):
        found = states(registry)
        assert list(found.values()).count("serving") == 1
        before = len(registry.decisions())
        serving = registry.serving()
        assert serving
        outcomes.add((serving.id == ids[1], before))
        last = registry.decisions()[-1]
        assert (last.model, last.number) == (serving.id, before)
        # what was decided is never lost by what is decided next
        registry.promote(ids[1], reason="second")
        registry.rollback(reason="once more")
        assert [d.number for d in registry.decisions()] == list(range(1, len(registry.decisions()) + 1))
        assert last in registry.decisions()
    assert len(outcomes) == 2, outcomes
