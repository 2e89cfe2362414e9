"""Published runs as readers find them, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.storage import filesystem, parquet, runs
from pipelines.storage.clients import BeamStore
from rerank_core.config.night import Tagging
from rerank_core.errors import OutputError
from schemas.errors import ManifestError
from schemas.manifest import footer, to_json
from tests.conftest import Night

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"manifest": 5}',
        b'{"manifest": "runs/run_date=2026-03-08/run_id=none/manifest.json"}',
    ],
)
def test_a_damaged_pointer_is_an_error(output: Path, content: bytes) -> None:
    (output / "latest.json").write_bytes(content)
    with pytest.raises(ManifestError, match=r"latest\.json|none/manifest\.json"):
        runs.latest(str(output))


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "/tmp/evil",
        "runs/../../evil",
        "runs/run_date=2026-03-08/run_id=../evil",
        "\x00",
        "runs//evil",
        "",
    ],
)
def test_a_pointer_leads_nowhere_else(night: Night, output: Path, path: str) -> None:
    evil = output.parent / "evil"
    evil.mkdir()
    (evil / "manifest.json").write_text(to_json(night.manifest))
    for named in (path, f"{path}/manifest.json", str(evil / "manifest.json")):
        (output / "latest.json").write_text(json.dumps({"manifest": named}))
        with pytest.raises(ManifestError, match=r"latest\.json names"):
            runs.latest(str(output))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(content=JSON, inner=st.sampled_from(["manifest", "run_id", "run_date", None]))
def test_a_pointer_of_any_json_is_read_or_refused(
    night: Night, output: Path, content: Any, inner: str | None
) -> None:
    whole = json.loads((night.output / "latest.json").read_text())
    (output / "latest.json").write_text(json.dumps(content if inner is None else whole | {inner: content}))
    with contextlib.suppress(ManifestError):
        assert runs.latest(str(output)) == night.manifest


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]", b'{"format": 1}'])
def test_a_damaged_manifest_is_an_error(night: Night, output: Path, content: bytes) -> None:
    path = output / runs.manifest_path(night.manifest.run_date, night.manifest.run_id)
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        runs.latest(str(output))


@pytest.mark.parametrize(
    ("field", "value"),
    [("run_id", "20260308-other"), ("run_date", "2026-03-09"), ("path", "../../x"), ("path", "/tmp")],
)
def test_a_manifest_speaks_of_its_own_folder_alone(
    night: Night, output: Path, field: str, value: str
) -> None:
    path = output / runs.manifest_path(night.manifest.run_date, night.manifest.run_id)
    raw = json.loads(path.read_text())
    if field == "path":
        raw["tables"]["reranked"]["path"] = value
    else:
        raw[field] = value
    path.write_text(json.dumps(raw))
    with pytest.raises(ManifestError, match="names other folders than its own"):
        runs.latest(str(output))


@pytest.mark.parametrize("name", ["latest.json", "runs", "manifest.json", "reranked"])
def test_a_link_out_of_the_folder_is_not_followed(night: Night, output: Path, name: str) -> None:
    folder = output / runs.run_path(night.manifest.run_date, night.manifest.run_id)
    path = (output if name in ("latest.json", "runs") else folder) / name
    shutil.move(path, output.parent / "outside")
    path.symlink_to(output.parent / "outside")
    with pytest.raises(ManifestError, match="by a link"):
        runs.table_files(str(output), runs.open_run(str(output)), "reranked")


def test_runs_are_found_by_their_id(night: Night, output: Path) -> None:
    assert runs.find_run(str(output), night.manifest.run_id) == night.manifest
    with pytest.raises(ManifestError, match="no run 'nosuch' in"):
        runs.find_run(str(output), "nosuch")
    assert runs.latest(str(output / "empty")) is None


@pytest.mark.parametrize("run_id", ["*", "../x", "a/b", "", "-", "a\x00", "é"])
def test_a_run_id_is_no_pattern(output: Path, run_id: str) -> None:
    with pytest.raises(ManifestError, match="no run"):
        runs.find_run(str(output), run_id)


@pytest.mark.parametrize(
    "damage", ["lost file", "cut file", "extra file", "a file for a folder", "no folder"]
)
def test_a_table_that_is_not_what_its_manifest_says_is_not_read(
    night: Night, output: Path, damage: str
) -> None:
    table = output / night.manifest.tables["reranked"].path
    first, second, *_ = sorted(table.iterdir())
    if damage == "lost file":
        first.unlink()
    elif damage == "cut file":
        first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    elif damage == "extra file":
        shutil.copy(second, second.with_name("part-00009-of-00009.parquet"))
    else:
        shutil.rmtree(table)
        if damage == "a file for a folder":
            table.write_text("")
    with pytest.raises(
        ManifestError, match="is not what its manifest says .* damaged after it was published"
    ):
        runs.table_files(str(output), night.manifest, "reranked")


def test_one_flipped_bit_anywhere_is_found(night: Night, output: Path) -> None:
    runs.check_run(str(output), night.manifest)
    for table in night.manifest.tables:
        path = Path(runs.table_files(str(output), night.manifest, table)[0])
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 5)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(ManifestError, match=f"{path.name} has another checksum than"):
                runs.check_run(str(output), night.manifest)
        path.write_bytes(whole)
    runs.check_run(str(output), night.manifest)


def test_in_an_object_store_a_night_begins_with_footers(
    night: Night, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = BeamStore.read

    def counted(self: BeamStore, path: str, start: int, end: int) -> bytes:
        read.append(end - start)
        return real(self, path, start, end)

    monkeypatch.setattr(BeamStore, "read", counted)
    monkeypatch.setattr(parquet, "TAIL", 1000)  # less than a footer has: the rest is read too
    manifest = night.manifest
    for path in runs.table_files(str(night.output), manifest, "reranked"):
        target = f"{store}/{Path(path).relative_to(night.output)}"
        filesystem.write_bytes(target, Path(path).read_bytes())
    files = runs.check_to_read(store, manifest, "reranked")
    assert files == runs.table_files(store, manifest, "reranked")
    assert len(read) == 2 * len(files)
    whole = filesystem.read_bytes(files[0])
    length = len(footer(whole))
    for at in range(len(whole) - length, len(whole), max(1, length // 20)):
        filesystem.write_bytes(files[0], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ManifestError, match=f"{Path(files[0]).name} has another footer than"):
            runs.check_to_read(store, manifest, "reranked")
    filesystem.write_bytes(files[0], whole + b"x")
    with pytest.raises(ManifestError, match="is not what its manifest says"):
        runs.check_to_read(store, manifest, "reranked")


def test_a_file_that_cannot_be_read_is_named(night: Night, output: Path) -> None:
    path = Path(runs.table_files(str(output), night.manifest, "reranked")[0])
    size = path.stat().st_size
    path.unlink()
    path.mkdir()
    assert stat.S_ISDIR(path.stat().st_mode)
    assert size
    with pytest.raises(ManifestError, match=path.name):
        runs.check_run(str(output), night.manifest)


def test_a_folder_name_is_no_pattern(night: Night, tmp_path: Path) -> None:
    output = tmp_path / "nights [1] a*b?"
    shutil.copytree(night.output, output)
    shutil.copytree(night.output, tmp_path / "nights 1 ab")  # what the name would match as a pattern
    files = runs.table_files(str(output), night.manifest, "reranked")
    assert len(files) == len(night.manifest.tables["reranked"].files)
    assert runs.find_run(str(output), night.manifest.run_id) == night.manifest
    filesystem.remove(str(output))
    assert not output.exists()
    assert (tmp_path / "nights 1 ab").exists()


def test_an_earlier_layout_is_refused(output: Path) -> None:
    (output / "manifests").mkdir()
    for read in (runs.latest, runs.open_run, lambda path: runs.open_run(path, "20260308-x")):
        with pytest.raises(OutputError, match="earlier version .*; choose a new output.path") as raised:
            read(str(output))
        assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["latest.json", "manifest.json"])
def test_a_pipe_is_not_waited_for(night: Night, output: Path, name: str) -> None:
    folder = output / runs.run_path(night.manifest.run_date, night.manifest.run_id)
    path = (output if name == "latest.json" else folder) / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ManifestError, match=f"{name} is neither a file nor a folder"):
        runs.latest(str(output))


def test_a_section_of_the_configuration_is_read_or_refused(night: Night) -> None:
    assert runs.section(night.manifest, Tagging, "tags") == night.config.tags
    for wrong in ({"enabled": 5}, {"nosuch": 1}, {"recogniser": []}):
        damaged = dataclasses.replace(night.manifest, config=night.manifest.config | {"tags": wrong})
        with pytest.raises(ManifestError, match=r"the manifest of run .*, \[tags\]"):
            runs.section(damaged, Tagging, "tags")
