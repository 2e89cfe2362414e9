"""Files of the output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.storage import filesystem
from schemas.errors import ManifestError


def test_text_is_read_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbfq1\td1\t1\n")
    with filesystem.open_text(str(tmp_path / "a.tsv")) as file:
        assert file.read() == "q1\td1\t1\n"


def test_a_moved_folder_replaces_what_was_there(tmp_path: Path) -> None:
    source, target = tmp_path / "staging" / "table", tmp_path / "published" / "table"
    filesystem.write_bytes(str(source / "part-1.parquet"), b"new")
    filesystem.write_bytes(str(target / "part-9.parquet"), b"old")
    filesystem.move_folder(str(source), str(target))
    assert [path.name for path in target.iterdir()] == ["part-1.parquet"]
    assert not source.exists()


def test_missing_files_are_none_and_removing_them_is_no_error(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert filesystem.files(nowhere) == []
    assert not filesystem.exists(nowhere)
    filesystem.remove(nowhere)


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-1.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(ManifestError, match=r"part-1\.parquet is not a readable Parquet file"):
        filesystem.count_rows(str(tmp_path / "part-1.parquet"))
