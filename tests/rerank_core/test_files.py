"""A text file is the same however it was saved."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest

from rerank_core.files import UnreadableFile, is_address, not_here, plain_or_gz, read_lines, read_text

TEXT = "one\ntwo é\n\nfour"
LINES = [b"one", "two é".encode(), b"", b"four"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])  # a name proves nothing
def test_marks_line_ends_and_compression(
    tmp_path: Path, mark: bytes, end: bytes, packed: bool, name: str
) -> None:
    content = mark + TEXT.encode().replace(b"\n", end)
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    assert list(read_lines(tmp_path / name)) == LINES
    assert read_text(tmp_path / name) == TEXT + "\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("packed", [False, True])
def test_wide_encodings_are_named(tmp_path: Path, encoding: str, packed: bool) -> None:
    content = ("" if encoding in ("utf-16", "utf-32") else "\ufeff").encode(encoding) + TEXT.encode(encoding)
    (tmp_path / "a").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UnreadableFile, match=rf"it is {encoding[:6].upper()}; save it as UTF-8"):
        list(read_lines(tmp_path / "a"))


def test_damage_is_said(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(gzip.compress(bytes(range(256)) * 100)[:-20])
    with pytest.raises(UnreadableFile, match="copy it again"):
        list(read_lines(tmp_path / "cut"))
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    with pytest.raises(UnreadableFile, match="byte 0xe9 at position 1 of a line is not UTF-8"):
        read_text(tmp_path / "latin")
    with pytest.raises(FileNotFoundError):
        list(read_lines(tmp_path / "absent"))


@pytest.mark.parametrize("content", [TEXT.encode(), gzip.compress(TEXT.encode(), mtime=0), b""])
def test_a_pipe_is_read(tmp_path: Path, content: bytes) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    assert list(read_lines(tmp_path / "pipe")) == (LINES if content else [])
    writer.join()


def test_empty_files_have_no_line(tmp_path: Path) -> None:
    for content in (b"", gzip.compress(b"")):
        (tmp_path / "a").write_bytes(content)
        assert list(read_lines(tmp_path / "a")) == []


@pytest.mark.parametrize("path", ["s3://bucket/key", "gs://b/a b[1]", "hdfs://host:9/x"])
def test_an_address_is_known_even_as_a_path(path: str) -> None:
    assert is_address(path)
    assert is_address(Path(path))
    for written in (False, True):
        message = not_here(path, written=written)
        assert not_here(Path(path), written=written) == message
        assert message.startswith(f"{path} is an address")
        assert ("copy it to this machine" in message, "write it to this machine" in message) == (
            not written,
            written,
        )


@pytest.mark.parametrize("path", ["", "a", "/a/b", "owner/name", "a:b", "registry:serving", "C:/x"])
def test_what_is_no_address(path: str) -> None:
    assert not is_address(path)
    assert not is_address(Path(path))


def test_a_compressed_file_is_read_where_the_plain_one_is_missing(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.tsv", tmp_path / "a.tsv.gz"
    assert plain_or_gz(plain) == plain
    packed.touch()
    assert plain_or_gz(plain) == packed
    plain.touch()
    assert plain_or_gz(plain) == plain
