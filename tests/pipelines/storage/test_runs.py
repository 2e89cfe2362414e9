"""Publishing by steps that may each be the last one, the pointer, and the lock."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from pipelines.storage import filesystem, runs
from rerank_core import errors
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from schemas.tables import TABLES
from tests.conftest import Night
from tests.support.tiny import published_bytes

STEPS = 15  # of publishing: two a table, two for the manifest, two for the pointer, one to clear staging


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


def stage(night: Night, output: Path, manifest: Manifest) -> None:
    """Put a run's files into staging, as a finished pipeline leaves them."""
    for name in TABLES:
        source = night.output / night.manifest.tables[name].path
        shutil.copytree(source, Path(runs.staging(str(output), manifest.run_id)) / name)


def renamed(night: Night, run_id: str) -> Manifest:
    """The night's manifest under another id, so that it publishes beside it."""
    tables = {
        name: dataclasses.replace(info, path=runs.table_path(name, night.manifest.run_date, run_id))
        for name, info in night.manifest.tables.items()
    }
    return dataclasses.replace(night.manifest, run_id=run_id, tables=tables)


@pytest.fixture
def output(night: Night, tmp_path: Path) -> Path:
    """An output folder in which the night is published."""
    shutil.copytree(night.output, tmp_path / "output")
    return tmp_path / "output"


@pytest.fixture
def die_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`die_at(n)`: the n-th change that publishing makes to the folder, from 0, is not made any more."""

    def set_up(step: int) -> None:
        steps = iter(range(1000))
        for module, name in ((os, "rename"), (runs, "write_bytes"), (runs, "remove"), (filesystem, "remove")):
            real = getattr(module, name)

            def dying(*args: object, real: Callable[..., object] = real) -> object:
                if next(steps) == step:
                    raise Killed
                return real(*args)

            monkeypatch.setattr(module, name, dying)

    return set_up


@pytest.mark.parametrize("step", range(STEPS))
def test_killed_at_any_step_the_last_run_is_served(
    night: Night, output: Path, die_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    manifest = renamed(night, "20260308-second")
    stage(night, output, manifest)
    die_at(step)
    with pytest.raises(Killed):
        runs.publish(str(output), manifest)
    monkeypatch.undo()
    served = runs.latest(str(output))
    assert served == (manifest if step == STEPS - 1 else night.manifest)  # the last step clears staging
    assert served is not None
    for name in TABLES:
        assert len(runs.table_files(str(output), served, name)) == served.tables[name].files
    # The night is started again: it clears staging, writes the same and publishes it.
    with runs.lock(str(output), manifest.run_id):
        stage(night, output, manifest)
        runs.publish(str(output), manifest)
    assert runs.latest(str(output)) == manifest
    assert list(published_bytes(output, manifest).values()) == list(
        published_bytes(output, night.manifest).values()
    )


def test_the_steps_are_all_there_are(night: Night, output: Path, die_at: Callable[[int], None]) -> None:
    manifest = renamed(night, "20260308-second")
    stage(night, output, manifest)
    die_at(STEPS)
    runs.publish(str(output), manifest)


@pytest.mark.parametrize("step", range(STEPS))
def test_a_run_published_again_under_its_own_id_is_whole_at_every_step(
    night: Night, output: Path, die_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    # With reuse switched off, a night that is run twice has one id: it must not remove what it is to replace.
    before = published_bytes(output, night.manifest)
    stage(night, output, night.manifest)
    die_at(step)
    with contextlib.suppress(Killed):
        runs.publish(str(output), night.manifest)
    monkeypatch.undo()
    assert runs.latest(str(output)) == night.manifest
    assert published_bytes(output, night.manifest) == before


def test_a_damaged_run_of_the_same_id_is_replaced(night: Night, output: Path) -> None:
    victim = next((output / night.manifest.tables["reranked"].path).iterdir())
    victim.write_bytes(victim.read_bytes()[:-10])
    stage(night, output, night.manifest)
    runs.publish(str(output), night.manifest)
    assert published_bytes(output, night.manifest) == published_bytes(night.output, night.manifest)


def test_a_half_written_file_is_no_part_of_a_table(
    night: Night, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = output / night.manifest.tables["reranked"].path

    def killed(*args: object) -> None:
        raise Killed

    monkeypatch.setattr(filesystem.FileSystems, "rename", killed)
    with pytest.raises(Killed):
        filesystem.write_bytes(str(table / "part-00000-of-00003.parquet"), b"half")
    assert len(list(table.iterdir())) == 4
    assert len(runs.table_files(str(output), night.manifest, "reranked")) == 3
    assert ds.dataset(table).count_rows() == night.manifest.tables["reranked"].rows


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"[]", b"{}", b'{"manifest": 5}', b'{"manifest": "manifests/none.json"}'],
)
def test_a_damaged_pointer_is_an_error(output: Path, content: bytes) -> None:
    (output / "latest.json").write_bytes(content)
    with pytest.raises(ManifestError, match=r"latest\.json|none\.json"):
        runs.latest(str(output))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]", b'{"format": 1}'])
def test_a_damaged_manifest_is_an_error(night: Night, output: Path, content: bytes) -> None:
    path = output / runs.manifest_path(night.manifest.run_date, night.manifest.run_id)
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        runs.latest(str(output))


def test_runs_are_found_by_their_id(night: Night, output: Path) -> None:
    assert runs.find_run(str(output), night.manifest.run_id) == night.manifest
    with pytest.raises(ManifestError, match="no run 'nosuch' in"):
        runs.find_run(str(output), "nosuch")
    assert runs.latest(str(output / "empty")) is None


@pytest.mark.parametrize("damage", ["lost file", "cut file", "extra file"])
def test_a_table_that_is_not_what_its_manifest_says_is_not_read(
    night: Night, output: Path, damage: str
) -> None:
    first, second, *_ = sorted((output / night.manifest.tables["reranked"].path).iterdir())
    if damage == "lost file":
        first.unlink()
    elif damage == "cut file":
        first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    else:
        shutil.copy(second, second.with_name("part-00009-of-00009.parquet"))
    with pytest.raises(ManifestError, match=first.name if damage == "cut file" else "but its manifest says"):
        runs.table_files(str(output), night.manifest, "reranked")


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    output = str(tmp_path / "output")
    with runs.lock(output, "first"):
        with (
            pytest.raises(errors.Locked, match=r"another run \(first, process \d+\) is writing to"),
            runs.lock(output, "second"),
        ):
            pass
        assert "first" in (tmp_path / "output" / "_lock").read_text()  # the loser leaves the holder's name
    with runs.lock(output, "third"):
        assert (tmp_path / "output" / "_lock").read_text().startswith("third,")


def test_the_lock_clears_what_killed_runs_left(tmp_path: Path) -> None:
    left = tmp_path / "_staging" / "killed" / "reranked"
    left.mkdir(parents=True)
    with runs.lock(str(tmp_path), "run"):
        assert not left.exists()


@pytest.mark.parametrize("path", ["file/output", "file"])
def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(errors.OutputError, match="cannot write to output.path .*; choose another folder"),
        runs.lock(str(tmp_path / path), "run"),
    ):
        pass


def test_a_remote_lock_stays_until_it_is_given_back(tmp_path: Path) -> None:
    path = str(tmp_path / "_lock")
    with runs._remote_lock(path, "first"):
        with pytest.raises(errors.Locked, match=f"first.*remove {path}"), runs._remote_lock(path, "second"):
            pass
        assert Path(path).read_text() == "first"
    assert not Path(path).exists()


def test_pointer_names_run_and_manifest(night: Night) -> None:
    pointer = json.loads((night.output / "latest.json").read_text())
    assert pointer["run_id"] == night.manifest.run_id
    assert (night.output / pointer["manifest"]).is_file()


def test_a_folder_name_is_no_pattern(night: Night, tmp_path: Path) -> None:
    output = tmp_path / "nights [1] a*b?"
    shutil.copytree(night.output, output)
    shutil.copytree(night.output, tmp_path / "nights 1 ab")  # what the name would match as a pattern
    assert (
        len(runs.table_files(str(output), night.manifest, "reranked"))
        == night.manifest.tables["reranked"].files
    )
    filesystem.remove(str(output))
    assert not output.exists()
    assert (tmp_path / "nights 1 ab").exists()


def test_a_run_id_is_no_pattern(output: Path) -> None:
    with pytest.raises(ManifestError, match="no run"):
        runs.find_run(str(output), "*")
