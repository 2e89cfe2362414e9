"""How a test server is fetched: by Maven under the machine's own Java, and once more past what Maven remembers."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.support.servers import elasticsearch_build
from tests.support.servers.elasticsearch_build import Unavailable, _fetch, maven_java

VERSION = "9.5.3"


def write_script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def write_java(home: Path, *, version: int = 17) -> Path:
    """A home whose `java` tells a version and does nothing else."""
    write_script(home / "bin" / "java", f"echo 'openjdk version \"{version}.0.1\"' >&2")
    return home


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on the path, on a machine that names no Java."""
    for name in ("JAVA_HOME", "ES_JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join((str(folder), "/usr/bin", "/bin")))
    return folder


def test_maven_runs_under_the_java_of_the_machine_although_it_is_too_old_for_the_server(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write_java(tmp_path / "own", version=11)
    monkeypatch.setattr(elasticsearch_build, "_packaged_java", lambda: [write_java(tmp_path / "packaged")])
    (bin_folder / "java").symlink_to(own / "bin" / "java")
    assert maven_java() == own
    monkeypatch.setenv("ES_JAVA_HOME", str(write_java(tmp_path / "for_the_server", version=25)))
    assert maven_java() == own
    monkeypatch.setenv("JAVA_HOME", str(write_java(tmp_path / "named")))
    assert maven_java() == tmp_path / "named"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "absent"))
    assert maven_java() == own


def test_without_any_other_java_maven_runs_under_the_packaged_one(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(bin_folder))
    packaged = write_java(tmp_path / "packaged")
    monkeypatch.setattr(elasticsearch_build, "_packaged_java", lambda: [packaged])
    assert maven_java() == packaged
    monkeypatch.setenv("ES_JAVA_HOME", str(write_java(tmp_path / "for_the_server")))
    assert maven_java() == tmp_path / "for_the_server"
    monkeypatch.delenv("ES_JAVA_HOME")
    monkeypatch.setattr(elasticsearch_build, "_packaged_java", list)
    with pytest.raises(Unavailable, match="needs Java"):
        maven_java()


def write_maven(folder: Path, *, fails: int) -> Path:
    """An `mvn` that fails so many times and notes how it was called."""
    calls = folder / "calls"
    write_script(
        folder / "mvn",
        f'echo "$JAVA_HOME $*" >> {calls}\n'
        f"count=$(wc -l < {calls})\n"
        f'if [ "$count" -le {fails} ]; then echo "[ERROR] failure number $count"; exit 1; fi',
    )
    return calls


@pytest.fixture
def own_java(bin_folder: Path, tmp_path: Path) -> Path:
    home = write_java(tmp_path / "own")
    (bin_folder / "java").symlink_to(home / "bin" / "java")
    return home


def test_what_is_fetched_at_once_is_fetched_once(bin_folder: Path, own_java: Path, tmp_path: Path) -> None:
    calls = write_maven(bin_folder, fails=0)
    _fetch(VERSION, tmp_path)
    (call,) = calls.read_text().splitlines()
    assert call.startswith(f"{own_java} ")
    assert f"-Dserver={VERSION}" in call
    assert "--update-snapshots" not in call


def test_a_failed_fetch_is_tried_again_past_what_maven_remembers(
    bin_folder: Path, own_java: Path, tmp_path: Path
) -> None:
    calls = write_maven(bin_folder, fails=1)
    _fetch(VERSION, tmp_path)
    first, second = calls.read_text().splitlines()
    assert second == f"{first} --update-snapshots"
    assert second.startswith(f"{own_java} ")


def test_two_failures_tell_what_was_tried(bin_folder: Path, own_java: Path, tmp_path: Path) -> None:
    write_maven(bin_folder, fails=2)
    with pytest.raises(Unavailable) as raised:
        _fetch(VERSION, tmp_path)
    message = str(raised.value)
    assert f"could not fetch Elasticsearch {VERSION}" in message
    assert f"Java 17 in {own_java}" in message
    assert str(bin_folder / "mvn") in message
    assert "failure number 1" in message
    assert "failure number 2" in message
    assert message.count("--update-snapshots") == 1
