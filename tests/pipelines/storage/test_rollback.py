"""Going back to an older run, and what the next night makes of it."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

from pipelines.storage import pointer, runs
from pipelines.storage.lock import lock
from pipelines.storage.pointer import point, served_until
from pipelines.storage.publish import publish
from pipelines.storage.rollback import rollback
from rerank_core.errors import Locked
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from tests.conftest import Night
from tests.pipelines.storage.conftest import contents, renamed, stage, stage_remotely
from tests.support.killed import count_changes, killed


@pytest.fixture
def three(night: Night, output: Path) -> list[Manifest]:
    """The night, a second run of its date, and a run of the day after, which is served."""
    found = [night.manifest]
    for run_id, date in (("20260308-second", "2026-03-08"), ("20260309-third", "2026-03-09")):
        manifest = renamed(night, run_id, run_date=date)
        stage(night, output, manifest)
        publish(str(output), manifest)
        found.append(manifest)
    return found


def test_one_step_back_at_a_time(output: Path, three: list[Manifest]) -> None:
    before = contents(output)
    for manifest in (three[1], three[0]):
        assert rollback(str(output)) == manifest
        assert runs.latest(str(output)) == manifest
    with pytest.raises(ManifestError, match=f"no run before {three[0].run_id} of 2026-03-08 is left"):
        rollback(str(output))
    assert runs.latest(str(output)) == three[0]
    assert rollback(str(output), three[2].run_id) == three[2]
    after = contents(output)
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert changed <= {"_history.json", "_lock"}  # latest.json names the third again
    assert set(served_until(str(output))) == {manifest.run_id for manifest in three}


def test_the_next_night_moves_on_from_it(night: Night, output: Path, three: list[Manifest]) -> None:
    rollback(str(output))
    for run_id, date, served in (
        ("20260307-older", "2026-03-07", three[1].run_id),
        ("20260310-next", "2026-03-10", "20260310-next"),
    ):
        manifest = renamed(night, run_id, run_date=date)
        stage(night, output, manifest)
        publish(str(output), manifest)
        newest = runs.latest(str(output))
        assert newest is not None
        assert newest.run_id == served
    assert rollback(str(output)) == three[2]  # by date, whatever was served


@pytest.mark.parametrize("named", ["", "20260308-second"])
def test_a_damaged_run_is_not_served(output: Path, three: list[Manifest], named: str) -> None:
    victim = Path(runs.table_files(str(output), three[1], "reranked")[0])
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(ManifestError, match=f"{victim.name} has another checksum"):
        rollback(str(output), named)
    assert runs.latest(str(output)) == three[2]


@pytest.mark.parametrize("victims", [(1,), (0,), (0, 1)])
def test_a_damaged_manifest_of_another_run_stops_nothing(
    output: Path, three: list[Manifest], victims: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is passed over, with a warning; only where no other run is left it is an error, which names it."""
    for number in victims:
        (output / runs.manifest_path(three[number].run_date, three[number].run_id)).write_text("{")
    if len(victims) == 2:
        with pytest.raises(ManifestError, match=r"no run before 20260309-third .*; left out: .*; left out: "):
            rollback(str(output))
        assert runs.latest(str(output)) == three[2]
        return
    (left,) = {0, 1} - set(victims)
    warned: list[str] = []
    logger = rollback.__globals__["logger"]
    monkeypatch.setattr(logger, "warning", lambda text, *values: warned.append(text % values))
    assert rollback(str(output)) == three[left]
    assert runs.latest(str(output)) == three[left]
    (line,) = warned
    assert three[victims[0]].run_id in line
    assert line.endswith("; it is passed over")


def test_what_cannot_be_rolled_back_says_why(output: Path, three: list[Manifest], tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no run 'nosuch'"):
        rollback(str(output), "nosuch")
    with pytest.raises(ManifestError, match="there is no run in .*/mistyped; name the output folder"):
        rollback(str(tmp_path / "mistyped"))
    assert not (tmp_path / "mistyped").exists()
    with lock(str(output), "tonight"), pytest.raises(Locked, match="tonight"):
        rollback(str(output))
    (output / "latest.json").unlink()
    with pytest.raises(ManifestError, match="nothing is served from .* name a run with --run-id"):
        rollback(str(output))
    (output / "latest.json").write_text("[")
    with pytest.raises(ManifestError, match="or name the run to serve with --run-id"):
        rollback(str(output))
    assert rollback(str(output), three[0].run_id) == three[0]


def test_killed_at_any_change_a_whole_run_is_served(
    output: Path, three: list[Manifest], tmp_path: Path
) -> None:
    for step in itertools.count():
        now = tmp_path / "now"
        shutil.rmtree(now, ignore_errors=True)
        shutil.copytree(output, now)
        with killed(now, at=step):
            rollback(str(now))
        assert runs.latest(str(now)) in three[1:]
        if step == count_changes():
            break
        rollback(str(now), three[1].run_id)
        assert runs.latest(str(now)) == three[1]


def test_in_an_object_store(night: Night, store: str) -> None:
    found = [renamed(night, f"2026030{day}-n", run_date=f"2026-03-0{day}") for day in (7, 8)]
    for manifest in found:
        stage_remotely(night, store, manifest)
        publish(store, manifest)
    assert rollback(store) == found[0]
    assert runs.latest(store) == found[0]


@pytest.mark.parametrize(
    "damage",
    ["", "[", "[]", '{"served": 5}', '{"served": [5, {"run_id": "x"}, {"run_id": [], "until": "2026"}]}'],
)
def test_a_damaged_history_is_begun_anew(output: Path, three: list[Manifest], damage: str) -> None:
    (output / "_history.json").write_text(damage)
    assert served_until(str(output)) == {}
    rollback(str(output))
    assert set(served_until(str(output))) == {three[2].run_id}


def test_the_history_is_bounded(output: Path, three: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointer, "MOST", 3)
    for turn in range(6):
        point(str(output), three[turn % 2])
    served = json.loads((output / "_history.json").read_text())["served"]
    assert [entry["run_id"] for entry in served] == [three[turn].run_id for turn in (0, 1, 0)]
