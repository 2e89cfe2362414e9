"""Files and folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.exchange.targets import writing
from rerank_core.errors import OutputError
from tests.support.object_store import MemoryFileSystem


@pytest.fixture(params=["local", "object store"])
def base(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(MemoryFileSystem, "objects", {})
    return str(tmp_path) if request.param == "local" else "mem://bucket"


def found(base: str) -> dict[str, bytes]:
    if base.startswith("mem://"):
        return {path.removeprefix(f"{base}/"): data for path, data in MemoryFileSystem.objects.items()}
    return {
        str(path.relative_to(base)): path.read_bytes() for path in Path(base).rglob("*") if path.is_file()
    }


def write(path: str, *parts: str) -> None:
    with writing(path) as create:
        for part in parts:
            create(part).write(b"data of " + part.encode())


def test_a_file_and_a_folder_appear_under_their_names(base: str) -> None:
    write(f"{base}/deep/a.jsonl", "")
    write(f"{base}/folder/", "b", "qrels/c")
    assert found(base) == {
        "deep/a.jsonl": b"data of ",
        "folder/b": b"data of b",
        "folder/qrels/c": b"data of qrels/c",
    }


def test_nothing_is_seen_before_the_end_and_nothing_left_after_a_failure(base: str) -> None:
    with pytest.raises(ZeroDivisionError), writing(f"{base}/folder") as create:  # noqa: PT012
        create("a").write(b"a")
        assert not [path for path in found(base) if path.startswith("folder")]
        raise ZeroDivisionError
    assert found(base) == {}


def test_what_is_there_stays(base: str) -> None:
    write(f"{base}/a.jsonl", "")
    write(f"{base}/folder", "b")
    before = found(base)
    for path in ("a.jsonl", "folder"):
        with pytest.raises(OutputError, match=f"{path} exists already, and is not replaced"):
            write(f"{base}/{path}", "")
    assert found(base) == before


def test_an_empty_folder_may_be_filled_and_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(str(tmp_path / "empty"), "a")
    assert found(str(tmp_path)) == {"empty/a": b"data of a"}
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="dangling exists already"):
        write(str(tmp_path / "dangling"), "")
    assert not (tmp_path / "elsewhere").exists()
