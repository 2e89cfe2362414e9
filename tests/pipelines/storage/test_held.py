"""Runs that are held back: whole or not there, met by no reader, and published when somebody decides so."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from pipelines.storage import runs
from pipelines.storage.clean import clean
from pipelines.storage.held import find_held, held_path, held_runs, hold, release
from pipelines.storage.lock import lock
from pipelines.storage.publish import publish
from rerank_core.errors import Locked, NightError
from schemas.errors import ManifestError
from tests.conftest import Night
from tests.pipelines.storage.conftest import contents, renamed, stage, stage_remotely
from tests.support.killed import count_changes, killed
from tests.support.object_store import MemoryFileSystem, each_kill
from tests.support.tiny import published_bytes

HELD = "20260309-held"


def held(night: Night, output: Path, **changes: str) -> None:
    manifest = renamed(night, HELD, **{"run_date": "2026-03-09", **changes})
    stage(night, output, manifest)
    assert hold(str(output), manifest) == held_path(manifest.run_date, HELD)


def test_a_held_run_is_met_by_no_reader(night: Night, output: Path) -> None:
    before = contents(output)
    held(night, output)
    (found,) = held_runs(str(output))
    assert found.tables["reranked"].path == f"_held/run_date=2026-03-09/run_id={HELD}/reranked"
    runs.check_run(str(output), found)
    folder = output / held_path("2026-03-09", HELD)
    assert {path.name for path in folder.iterdir()} == {*found.tables, "manifest.json"}
    assert find_held(str(output), HELD) == found
    assert find_held(str(output), night.manifest.run_id) is None
    assert runs.latest(str(output)) == night.manifest
    with pytest.raises(ManifestError, match="no run"):
        runs.open_run(str(output), HELD)
    after = contents(output)
    clean(str(output))
    assert contents(output) == after
    assert {path: data for path, data in after.items() if not path.startswith("_held/")} == before


def test_one_that_is_held_again_is_replaced(night: Night, output: Path) -> None:
    held(night, output)
    held(night, output, created_at="2999-02-02T00:00:00.000+00:00")
    (found,) = held_runs(str(output))
    assert found.created_at == "2999-02-02T00:00:00.000+00:00"
    runs.check_run(str(output), found)


def test_released_it_is_published_as_a_night_would(night: Night, output: Path, tmp_path: Path) -> None:
    direct = tmp_path / "direct"
    shutil.copytree(output, direct)
    manifest = renamed(night, HELD, run_date="2026-03-09")
    stage(night, direct, manifest)
    publish(str(direct), manifest)
    held(night, output)
    released = release(str(output), HELD)
    assert runs.latest(str(output)) == released
    assert released.created_at != manifest.created_at  # the moment of publishing
    assert published_bytes(output, released) == published_bytes(direct, manifest)
    assert contents(output).keys() == contents(direct).keys()
    with pytest.raises(ManifestError, match="is not held back: it is published"):
        release(str(output), HELD)
    with pytest.raises(ManifestError, match="there is no run in .*/mistyped; name the output folder"):
        release(str(tmp_path / "mistyped"), HELD)
    assert not (tmp_path / "mistyped").exists()
    with pytest.raises(ManifestError, match="no run 'nosuch' is held back in .*; those held back are: none"):
        release(str(output), "nosuch")


@pytest.mark.parametrize("set_latest", [False, True])
def test_an_older_one_moves_the_pointer_if_asked(night: Night, output: Path, set_latest: bool) -> None:
    held(night, output, run_date="2026-03-01")
    released = release(str(output), HELD, set_latest=set_latest)
    assert runs.latest(str(output)) == (released if set_latest else night.manifest)


def test_a_run_that_is_published_after_all_is_no_longer_held(night: Night, output: Path) -> None:
    held(night, output)
    manifest = renamed(night, HELD, run_date="2026-03-09")
    stage(night, output, manifest)
    publish(str(output), manifest)
    assert held_runs(str(output)) == []
    assert not list((output / "_held").iterdir())


def test_a_damaged_one_is_not_released(night: Night, output: Path) -> None:
    held(night, output)
    victim = next((output / held_path("2026-03-09", HELD) / "reranked").glob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(ManifestError, match=f"{victim.name} has another checksum"):
        release(str(output), HELD)
    assert held_runs(str(output))
    assert runs.latest(str(output)) == night.manifest


def test_a_run_is_not_released_while_another_one_writes(night: Night, output: Path) -> None:
    held(night, output)
    with lock(str(output), "tonight"), pytest.raises(Locked, match="tonight"):
        release(str(output), HELD)


def test_a_disk_that_cannot_hold_it_is_an_error(night: Night, output: Path) -> None:
    (output / "_held").write_text("in the way, as a full disk is")
    manifest = renamed(night, HELD)
    stage(night, output, manifest)
    with pytest.raises(NightError, match=f"run {HELD} could not be kept in .*_held"):
        hold(str(output), manifest)


def test_killed_at_any_change_it_is_held_whole_or_not_at_all(
    night: Night, output: Path, tmp_path: Path
) -> None:
    manifest = renamed(night, HELD, run_date="2026-03-09")
    stage(night, output, manifest)
    seen = set()
    for step in itertools.count():
        now = tmp_path / "now"
        shutil.rmtree(now, ignore_errors=True)
        shutil.copytree(output, now)
        with killed(now, at=step):
            hold(str(now), manifest)
        if step == count_changes():
            break
        assert runs.latest(str(now)) == night.manifest
        clean(str(now))
        found = held_runs(str(now))
        seen.add(len(found))
        for run in found:
            runs.check_run(str(now), run)
        stage(night, now, manifest)
        hold(str(now), manifest)
        runs.check_run(str(now), held_runs(str(now))[0])
    assert seen == {0, 1}


def test_killed_at_any_change_it_is_released_when_asked_again(
    night: Night, output: Path, tmp_path: Path
) -> None:
    held(night, output)
    for step in itertools.count():
        now = tmp_path / "now"
        shutil.rmtree(now, ignore_errors=True)
        shutil.copytree(output, now)
        with killed(now, at=step):
            release(str(now), HELD)
        if step == count_changes():
            break
        served = runs.latest(str(now))
        assert served is not None
        runs.check_run(str(now), served)
        if held_runs(str(now)):
            release(str(now), HELD)
        served = runs.latest(str(now))
        assert served is not None
        assert served.run_id == HELD
        runs.check_run(str(now), served)
        clean(str(now))
        assert held_runs(str(now)) == []
    assert step > 40


def test_an_object_store_holds_and_releases_likewise(night: Night, store: str) -> None:
    first = renamed(night, "20260308-first", created_at="2026-03-09")
    manifest = renamed(night, HELD, run_date="2026-03-09")
    stage_remotely(night, store, first)
    publish(store, first)
    stage_remotely(night, store, manifest)
    for finished in each_kill(lambda: hold(store, manifest)):
        assert runs.latest(store) == first
        clean(store)
        found = held_runs(store)
        assert len(found) == 1 or not finished
        for run in found:
            runs.check_run(store, run)
        assert finished or all("_held" not in path for path in MemoryFileSystem.objects) or found
    for finished in each_kill(lambda: release(store, HELD)):
        MemoryFileSystem.objects.pop(f"{store}/_lock", None)
        served = runs.latest(store)
        assert served is not None
        assert served.run_id == HELD or not finished
        runs.check_run(store, served)
        if held_runs(store):
            served = release(store, HELD)
        assert runs.latest(store) == served
        assert served.run_id == HELD
        runs.check_run(store, served)
        clean(store)
        assert not [path for path in MemoryFileSystem.objects if "_held" in path or "_staging" in path]
