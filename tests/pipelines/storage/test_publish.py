"""Publishing by steps that may each be the last one, on a disk and in an object store; and the pointer."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

from pipelines.storage import filesystem, runs
from pipelines.storage.clean import clean
from pipelines.storage.publish import publish
from rerank_core.errors import NightError
from schemas.manifest import Manifest
from schemas.tables import TABLES
from tests.conftest import Night
from tests.pipelines.storage.conftest import renamed, stage, stage_remotely
from tests.support.killed import count_changes, killed
from tests.support.object_store import MemoryFileSystem, each_kill
from tests.support.tiny import published_bytes


def shown(output: Path, table: str = "reranked") -> dict[str, bytes]:
    """What readers see who list a table's folder."""
    folder = output / table
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def parts(output: Path, manifest: Manifest, table: str = "reranked") -> dict[str, bytes]:
    """What they should see of one run."""
    return {
        f"run_date={manifest.run_date}/run_id={manifest.run_id}/{Path(path).name}": Path(path).read_bytes()
        for path in runs.table_files(str(output), manifest, table)
    }


def test_a_run_appears_whole_and_is_shown_by_table(night: Night, output: Path) -> None:
    older, second = renamed(night, "20260307-older", run_date="2026-03-07"), renamed(night, "20260308-second")
    for manifest in (older, second):
        stage(night, output, manifest)
        assert publish(str(output), manifest) == manifest
        runs.check_run(str(output), manifest)
    assert runs.latest(str(output)) == second
    pointer = json.loads((output / "latest.json").read_text())
    assert (pointer["run_id"], pointer["run_date"]) == (second.run_id, "2026-03-08")
    assert (output / pointer["manifest"]).is_file()
    for table in TABLES:
        assert shown(output, table) == parts(output, older, table) | parts(output, second, table)
    folder = output / runs.run_path(second.run_date, second.run_id)
    assert {path.name for path in folder.iterdir()} == {*TABLES, "manifest.json"}
    assert not (output / "_staging").exists()
    file = Path(runs.table_files(str(output), second, "reranked")[0])
    assert file.samefile(output / "reranked" / "run_date=2026-03-08" / f"run_id={second.run_id}" / file.name)


def test_killed_at_any_change_readers_see_whole_runs(night: Night, output: Path, tmp_path: Path) -> None:
    second = renamed(night, "20260308-second")
    stage(night, output, second)
    outcomes = set()
    for step in itertools.count():
        now = tmp_path / "now"
        shutil.rmtree(now, ignore_errors=True)
        shutil.copytree(output, now)
        with killed(now, at=step):
            publish(str(now), second)
        if step == count_changes():
            break
        served = runs.latest(str(now))
        assert served in (night.manifest, second)
        runs.check_run(str(now), served)
        is_published = (now / runs.manifest_path(second.run_date, second.run_id)).exists()
        for table in TABLES:
            right = [
                parts(now, night.manifest, table),
                *([parts(now, second, table)] if is_published else []),
            ]
            assert shown(now, table) in right
        # Whatever the next run is, it finds the folder clean.
        clean(str(now))
        assert not (now / "_staging").exists()
        newest = second if is_published else night.manifest
        for table in TABLES:
            assert shown(now, table) == parts(now, newest, table)
        assert (now / runs.run_path(second.run_date, second.run_id)).exists() == is_published
        assert not [path for path in now.rglob("*") if ".tmp-" in path.name]
        # The night is started again.
        stage(night, now, second)
        publish(str(now), second)
        assert runs.latest(str(now)) == second
        outcomes.add((served == second, is_published))
    assert outcomes == {(False, False), (False, True), (True, True)}
    assert step > 30


def test_killed_while_a_run_is_published_again_it_is_whole(
    night: Night, output: Path, tmp_path: Path
) -> None:
    # With reuse switched off, a night that is run twice has one id: it must not remove what it is to replace.
    before = published_bytes(output, night.manifest)
    stage(night, output, night.manifest)
    for step in itertools.count():
        now = tmp_path / "now"
        shutil.rmtree(now, ignore_errors=True)
        shutil.copytree(output, now)
        with killed(now, at=step):
            assert publish(str(now), night.manifest) == night.manifest
        assert runs.latest(str(now)) == night.manifest
        assert published_bytes(now, night.manifest) == before
        if step == count_changes():
            break


@pytest.mark.parametrize("damage", ["a page", "cut", "missing", "extra", "manifest", "other table"])
def test_a_damaged_run_of_the_same_id_is_replaced_and_told(night: Night, output: Path, damage: str) -> None:
    victim = Path(runs.table_files(str(output), night.manifest, "passage_tags")[0])
    data = bytearray(victim.read_bytes())
    if damage == "a page":
        data[40] ^= 1
        victim.write_bytes(data)
    elif damage == "cut":
        victim.write_bytes(data[:-10])
    elif damage == "missing":
        victim.unlink()
    elif damage == "extra":
        shutil.copy(victim, victim.with_name("part-9.parquet"))
    elif damage == "manifest":
        (victim.parents[1] / "manifest.json").write_text("[]")
    else:
        shutil.rmtree(victim.parent)
        victim.parent.write_text("a file")
    clean(str(output))
    stage(night, output, night.manifest)
    published = publish(str(output), night.manifest)
    assert "that was published before was replaced: " in str(published.degraded["replaced"])
    assert runs.latest(str(output)) == published
    runs.check_run(str(output), published)
    assert published_bytes(output, published) == published_bytes(night.output, night.manifest)
    for table in TABLES:
        assert shown(output, table) == parts(output, published, table)


def test_other_bytes_of_the_same_run_are_published_with_their_own_manifest(
    night: Night, output: Path
) -> None:
    stage(night, output, night.manifest)
    shutil.rmtree(output / night.manifest.tables["reranked"].path)  # replaced below, as another machine may
    clean(str(output))
    stage(night, output, night.manifest)
    published = publish(str(output), night.manifest)
    runs.check_run(str(output), published)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_by_systems_that_cannot_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(filesystem, "_exchange", lambda one, other: False)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "n").write_text("")
    filesystem.put_folder(str(tmp_path / "new"), str(tmp_path / "there" / "it"))
    (tmp_path / "newer").mkdir()
    filesystem.put_folder(str(tmp_path / "newer"), str(tmp_path / "there" / "it"))
    assert not list((tmp_path / "there" / "it").iterdir())
    assert [path.name for path in (tmp_path / "newer").iterdir()] == ["n"]  # what was there before
    assert {path.name for path in tmp_path.iterdir()} == {"newer", "there"}


def test_where_links_are_impossible_the_tables_are_copies(
    night: Night, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(filesystem.os, "link", refuse)
    second = renamed(night, "20260308-second")
    stage(night, output, second)
    publish(str(output), second)
    assert shown(output) == parts(output, second)
    inodes = {path: path.stat().st_ino for path in (output / "reranked").rglob("*.parquet")}
    clean(str(output))  # copies are not made again each night
    assert inodes == {path: path.stat().st_ino for path in (output / "reranked").rglob("*.parquet")}


def test_an_older_date_moves_the_pointer_only_if_asked(night: Night, output: Path) -> None:
    older = renamed(night, "20260301-older", run_date="2026-03-01")
    stage(night, output, older)
    publish(str(output), older)
    assert runs.latest(str(output)) == night.manifest
    assert runs.open_run(str(output), older.run_id) == older
    assert {name.split("/")[0] for name in shown(output)} == {"run_date=2026-03-01", "run_date=2026-03-08"}
    stage(night, output, older)
    publish(str(output), older, set_latest=True)
    assert runs.latest(str(output)) == older


@pytest.mark.parametrize(
    "pointer", [b"[", b'{"manifest": "runs/run_date=2999-01-01/run_id=x/manifest.json"}']
)
def test_a_pointer_that_leads_nowhere_moves(night: Night, output: Path, pointer: bytes) -> None:
    older = renamed(night, "20260301-older", run_date="2026-03-01")
    (output / "latest.json").write_bytes(pointer)
    stage(night, output, older)
    publish(str(output), older)
    assert runs.latest(str(output)) == older


def test_a_disk_that_cannot_be_written_is_an_error(night: Night, output: Path) -> None:
    second = renamed(night, "20260309-second", run_date="2026-03-09")
    stage(night, output, second)
    (output / "runs" / "run_date=2026-03-09").write_text("in the way, as a full disk is")
    with pytest.raises(NightError, match="20260309-second could not be published to .*output"):
        publish(str(output), second)
    assert runs.latest(str(output)) == night.manifest


# --- an object store


def remotely_shown(store: str) -> set[str]:
    return {path for table in TABLES for path in filesystem.listing(f"{store}/{table}")}


def test_an_object_store_holds_the_same(night: Night, store: str) -> None:
    first, second = (
        renamed(night, "20260308-first", created_at="2026-03-09"),
        renamed(night, "20260308-second"),
    )
    for manifest in (first, second):
        stage_remotely(night, store, manifest)
        publish(store, manifest)
        assert runs.latest(store) == manifest
        runs.check_run(store, manifest)
        files = {
            f"run_date=2026-03-08/run_id={manifest.run_id}/{n}"
            for t in manifest.tables.values()
            for n in t.files
        }
        assert remotely_shown(store) == files
    before = dict(MemoryFileSystem.objects)
    clean(store)
    assert before == MemoryFileSystem.objects
    assert runs.find_run(store, first.run_id) == first


def test_killed_at_any_change_an_object_store_serves_whole_runs(night: Night, store: str) -> None:
    first, second = (
        renamed(night, "20260308-first", created_at="2026-03-09"),
        renamed(night, "20260308-second"),
    )
    stage_remotely(night, store, first)
    publish(store, first)
    stage_remotely(night, store, second)
    for _ in each_kill(lambda: publish(store, second)):
        served = runs.latest(store)
        assert served in (first, second)
        runs.check_run(store, served)
        clean(store)
        newest = (
            second
            if f"{store}/{runs.manifest_path('2026-03-08', second.run_id)}" in MemoryFileSystem.objects
            else first
        )
        files = {
            f"run_date=2026-03-08/run_id={newest.run_id}/{n}" for t in newest.tables.values() for n in t.files
        }
        assert remotely_shown(store) == files
        left = {path for path in MemoryFileSystem.objects if "_staging" in path or ".tmp-" in path}
        assert not left
