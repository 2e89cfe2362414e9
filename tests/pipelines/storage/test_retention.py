"""Which runs go, by a property over sets of runs; and that a kill, a reader or a clock that jumps loses nothing."""

from __future__ import annotations

import datetime
import itertools
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.storage import runs
from pipelines.storage.clean import clean
from pipelines.storage.held import held_runs, hold
from pipelines.storage.lock import lock
from pipelines.storage.publish import publish
from pipelines.storage.retention import StoredRun, old_runs, remove_old_runs
from pipelines.storage.rollback import rollback
from rerank_core.config.operation import Retention
from rerank_core.errors import Locked, OutputError
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from schemas.tables import TABLES
from tests.conftest import Night
from tests.pipelines.storage.conftest import contents, renamed, stage, stage_remotely
from tests.support.killed import count_changes, killed
from tests.support.object_store import MemoryFileSystem, each_kill

DAY = datetime.date(2026, 3, 31)
NOW = datetime.datetime(2026, 4, 1, 3, tzinfo=datetime.UTC)
NONE: frozenset[str] = frozenset()

TIMES = st.integers(-40 * 24, 10 * 24).map(lambda hours: NOW + datetime.timedelta(hours=hours))
RUN = st.builds(
    StoredRun,
    run_date=st.integers(-40, 3).map(lambda days: DAY + datetime.timedelta(days=days)),
    created_at=TIMES,
    run_id=st.uuids().map(lambda value: value.hex),
)
RUNS = st.lists(RUN, max_size=12, unique_by=lambda run: run.run_id)
RETENTION = st.builds(
    Retention,
    keep_runs=st.integers(0, 12),
    keep_days=st.integers(0, 40),
    grace_hours=st.integers(0, 100).map(float),
)


@given(data=st.data(), found=RUNS, retention=RETENTION, now=TIMES)
def test_what_goes_is_beyond_a_limit_and_nothing_else_goes(
    data: st.DataObject, found: list[StoredRun], retention: Retention, now: datetime.datetime
) -> None:
    ids = [run.run_id for run in found]
    keep = frozenset(data.draw(st.sets(st.sampled_from(ids)))) if ids else NONE
    left = data.draw(st.dictionaries(st.sampled_from(ids), TIMES)) if ids else {}
    removed = old_runs(found, retention, day=DAY, now=now, keep=keep, left=left)
    since = now - datetime.timedelta(hours=retention.grace_hours)
    for run in found:
        newer = [other for other in found if (other.run_date, other.created_at, other.run_id) > run]
        beyond = 0 < retention.keep_runs <= len(newer)
        beyond |= 0 < retention.keep_days <= (DAY - run.run_date).days
        later = [other for other in found if other.created_at > run.created_at]
        # Nobody may have begun to read it within the grace: as the newest run, as the newest of its date, by a pointer.
        waited = run.created_at <= since and left.get(run.run_id, since) <= since
        waited &= not later or any(other.created_at <= since for other in later)
        later = [other for other in later if other.run_date == run.run_date]
        waited &= not later or any(other.created_at <= since for other in later)
        assert (run in removed) == (beyond and waited and run.run_id not in keep)
    assert removed == sorted(removed)
    remaining = [run for run in found if run not in removed]
    assert old_runs(remaining, retention, day=DAY, now=now, keep=keep, left=left) == []
    # A clock that went back, or a date before the right one, removes no more than the right one.
    earlier = now - data.draw(st.timedeltas(datetime.timedelta(0), datetime.timedelta(9000)))
    fewer = old_runs(found, retention, day=DAY, now=earlier, keep=keep, left=left)
    assert set(fewer) <= set(removed)


# --- in a folder


def nights(night: Night, output: Path, count: int, *, first: str = "2026-03-09") -> list[Manifest]:
    """Further nights, one a day, each published on the morning after."""
    day, found = datetime.date.fromisoformat(first), []
    for after in range(count):
        date = (day + datetime.timedelta(days=after)).isoformat()
        morning = f"{day + datetime.timedelta(days=after + 1)}T03:00:00.000+00:00"
        manifest = renamed(
            night, f"{date.replace('-', '')}-night", run_date=date, created_at=morning, model_fingerprint=date
        )
        stage(night, output, manifest)
        publish(str(output), manifest)
        found.append(manifest)
    return found


@pytest.fixture
def week(night: Night, output: Path) -> list[Manifest]:
    """Seven runs: the night's own of 8 March, and six after it. Readers last saw the pointer move long ago."""
    found = [night.manifest, *nights(night, output, 6)]
    (output / "_history.json").unlink()
    return found


def remove_after(
    output: Path | str, keep: frozenset[str] = NONE, *, hours: float = 0, **limits: int
) -> list[str]:
    """Retention on the morning of 15 March, that many hours later."""
    morning = datetime.datetime(2026, 3, 15, 3, 1, tzinfo=datetime.UTC)
    return remove_old_runs(
        str(output),
        Retention(**limits),  # type: ignore[arg-type]
        run_date=datetime.date(2026, 3, 14),
        keep=keep,
        now=morning + datetime.timedelta(hours=hours),
    )


def ids(found: list[Manifest]) -> list[str]:
    return [manifest.run_id for manifest in found]


def left_in(output: Path) -> list[str]:
    return [run_id for _, run_id in runs.run_ids(str(output))]


def test_by_default_nothing_is_removed(output: Path, week: list[Manifest]) -> None:
    before = contents(output)
    assert remove_after(output) == []
    assert contents(output) == before


@pytest.mark.parametrize(
    ("limits", "kept"), [({"keep_runs": 3}, 3), ({"keep_days": 4}, 4), ({"keep_runs": 5, "keep_days": 2}, 2)]
)
def test_runs_go_by_number_and_by_days(
    output: Path, week: list[Manifest], limits: dict[str, int], kept: int
) -> None:
    (output / "_plan").mkdir()
    for manifest in week:
        (output / "_plan" / f"run_date={manifest.run_date}.json").write_text("{}")
        (output / "_plan" / f"run_date={manifest.run_date}.html").write_text("")
    # The run of 8 March was published (by the clock of this test's machine) just now.
    expected = ids(week)[1:-kept]
    assert remove_after(output, **limits) == expected
    stay = [manifest for manifest in week if manifest.run_id not in expected]
    assert left_in(output) == ids(stay)
    for table in TABLES:
        dates = {path.name.removeprefix("run_date=") for path in (output / table).iterdir()}
        assert dates == {manifest.run_date for manifest in stay}
    for manifest in stay:
        runs.check_run(str(output), manifest)
    assert runs.latest(str(output)) == week[-1]
    assert {path.name.removeprefix("run_date=") for path in (output / "runs").iterdir()} == {
        manifest.run_date for manifest in stay
    }
    assert len(list((output / "_plan").iterdir())) == 2 * len(week)  # that of 8 March stays, and all after it
    assert remove_after(output, **limits) == []


def test_what_is_served_or_named_stays(output: Path, week: list[Manifest]) -> None:
    served, named = week[2], week[3]
    rollback(str(output), served.run_id)
    (output / "_history.json").unlink()
    removed = remove_after(output, frozenset({named.run_id}), keep_runs=1, hours=48)
    assert removed == [week[1].run_id, week[4].run_id, week[5].run_id]
    assert runs.latest(str(output)) == served
    runs.check_run(str(output), named)


def test_a_run_that_a_reader_may_have_open_stays_for_the_grace(output: Path, week: list[Manifest]) -> None:
    assert week[5].run_id not in remove_after(output, keep_runs=1, hours=-0.5)
    assert remove_after(output, keep_runs=1, hours=24) == ids(week[4:6])


def test_a_run_that_was_served_again_for_a_while_has_its_grace_from_then(
    output: Path, week: list[Manifest]
) -> None:
    rollback(str(output), week[3].run_id)
    rollback(str(output), week[6].run_id)  # just now, by the clock of this machine, which is after March 2026
    assert week[3].run_id not in remove_after(output, keep_runs=1)


def test_after_a_jump_of_a_date_nothing_goes_by_its_days(
    night: Night, output: Path, week: list[Manifest]
) -> None:
    far = renamed(night, "20290101-far", run_date="2029-01-01", created_at="2029-01-02T03:00:00.000+00:00")
    stage(night, output, far)
    publish(str(output), far)
    (output / "_history.json").unlink()
    retention, far_date = Retention(keep_days=7), datetime.date(2029, 1, 1)
    for now in (datetime.datetime(2029, 1, 2, 3, 1, tzinfo=datetime.UTC), NOW):
        assert remove_old_runs(str(output), retention, run_date=far_date, keep=NONE, now=now) == []
    assert remove_after(output, keep_days=7) == []
    assert len(left_in(output)) == 8


def test_a_damaged_run_is_left_to_its_owner(output: Path, week: list[Manifest]) -> None:
    (output / runs.manifest_path(week[1].run_date, week[1].run_id)).write_text("[]")
    assert remove_after(output, keep_runs=5) == []
    assert remove_after(output, keep_runs=4) == [week[2].run_id]


def test_where_nobody_knows_what_is_served_nothing_goes(output: Path, week: list[Manifest]) -> None:
    (output / "latest.json").write_text("[")
    with pytest.raises(ManifestError, match=r"latest\.json is damaged"):
        remove_after(output, keep_runs=1)
    (output / "latest.json").unlink()
    assert remove_after(output, keep_runs=1) == []
    assert len(left_in(output)) == 7


def test_old_held_runs_go_too(night: Night, output: Path, week: list[Manifest]) -> None:
    for manifest in week[1:4]:
        held = renamed(
            night, f"{manifest.run_id}-h", run_date=manifest.run_date, created_at=manifest.created_at
        )
        stage(night, output, held)
        hold(str(output), held)
    assert remove_after(output, keep_runs=7) == []
    assert remove_after(output, frozenset({f"{week[1].run_id}-h"}), keep_days=4) == [
        week[1].run_id,
        week[2].run_id,
        f"{week[2].run_id}-h",
    ]
    assert [held.run_id for held in held_runs(str(output))] == [f"{week[n].run_id}-h" for n in (1, 3)]


def test_an_open_file_is_read_to_its_end(output: Path, week: list[Manifest]) -> None:
    path = Path(runs.table_files(str(output), week[1], "reranked")[0])
    whole = path.read_bytes()
    with path.open("rb") as file:
        assert week[1].run_id in remove_after(output, keep_runs=1)
        assert not path.exists()
        assert file.read() == whole


def test_nothing_is_removed_while_a_run_writes(output: Path, week: list[Manifest]) -> None:
    with lock(str(output), "tonight"), pytest.raises(Locked, match="tonight"):
        remove_after(output, keep_runs=1)


def test_a_disk_that_refuses_is_an_error(
    output: Path, week: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OutputError, match="cannot remove old runs from .* goes with the next night"):
        remove_after(output, keep_runs=1)


def whole_and_shown(output: Path, expected: list[Manifest]) -> None:
    for manifest in expected:
        runs.check_run(str(output), manifest)
        for table in TABLES:
            shown = output / table / f"run_date={manifest.run_date}" / f"run_id={manifest.run_id}"
            assert {path.name for path in shown.iterdir()} == set(manifest.tables[table].files)


def test_killed_at_any_change_every_run_that_is_left_is_whole(
    output: Path, week: list[Manifest], tmp_path: Path
) -> None:
    by_id = {manifest.run_id: manifest for manifest in week}
    seen = set()
    for step in itertools.count():
        now = tmp_path / "now"
        shutil.rmtree(now, ignore_errors=True)
        shutil.copytree(output, now)
        with killed(now, at=step):
            remove_after(now, keep_runs=5)
        finished = step >= count_changes()
        whole_and_shown(now, [by_id[run_id] for run_id in left_in(now)])
        assert runs.latest(str(now)) == week[-1]
        seen.add(len(left_in(now)))
        clean(str(now))
        for table in TABLES:
            assert len(list((now / table).iterdir())) == len(left_in(now))
        remove_after(now, keep_runs=5)
        assert left_in(now) == ids([week[0], *week[2:]])
        assert not (now / "_staging").exists()
        if finished:
            break
    assert seen == {7, 6}


@pytest.fixture
def remote_week(night: Night, store: str) -> list[Manifest]:
    """Seven runs in an object store."""
    found = []
    for day in range(8, 15):
        manifest = renamed(
            night,
            f"202603{day:02}-night",
            run_date=f"2026-03-{day:02}",
            created_at=f"2026-03-{day + 1:02}T03:00:00.000+00:00",
        )
        stage_remotely(night, store, manifest)
        publish(store, manifest)
        found.append(manifest)
    del MemoryFileSystem.objects[f"{store}/_history.json"]
    return found


def test_killed_at_any_change_of_an_object_store_every_run_is_whole(
    store: str, remote_week: list[Manifest]
) -> None:
    by_id = {manifest.run_id: manifest for manifest in remote_week}
    for _ in each_kill(lambda: remove_after(store, keep_runs=4)):
        MemoryFileSystem.objects.pop(f"{store}/_lock", None)
        left = [run_id for _, run_id in runs.run_ids(store)]
        assert ids(remote_week)[-4:] == left[-4:]
        for run_id in left:
            runs.check_run(store, by_id[run_id])
        clean(store)
        remove_after(store, keep_runs=4)
        assert [run_id for _, run_id in runs.run_ids(store)] == ids(remote_week)[-4:]
        for path in MemoryFileSystem.objects:
            assert "_staging" not in path
            assert not any(run_id in path for run_id in ids(remote_week)[:-4])
