"""Files, local or of any file system that Beam supports (gs://, s3://)."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from schemas.errors import ManifestError


def join(*parts: str) -> str:
    """Join the parts of a path in the way of its file system."""
    return str(FileSystems.join(*parts))


def is_local(path: str) -> bool:
    """Whether the path is on this machine's file system."""
    return "://" not in path


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return bool(FileSystems.exists(path))


def write_bytes(path: str, data: bytes) -> None:
    """Write a file atomically: under a temporary name first, then a rename.

    If the process is killed in between, Arrow and Spark skip the temporary file: its name begins with "_".
    """
    folder, slash, name = path.rpartition("/")
    temporary = f"{folder}{slash}_{name}.tmp-{uuid.uuid4().hex}"
    make_folder(folder)
    with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)
    FileSystems.rename([temporary], [path])


def read_bytes(path: str) -> bytes:
    """The bytes of a file."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return bytes(file.read())


def open_text(path: str) -> TextIO:
    """Open a UTF-8 text file; a byte order mark is skipped."""
    return io.TextIOWrapper(FileSystems.open(path), encoding="utf-8-sig")


def make_folder(path: str) -> None:
    """Create a folder and its parents, unless they exist; an object store has none."""
    if is_local(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def files(folder: str, pattern: str = "*") -> list[str]:
    """Sorted paths of the files of a folder that match; none if there is no such folder."""
    if is_local(folder):  # Beam would read "[" or "*" in the folder's name as a pattern
        return sorted(str(path) for path in Path(folder).glob(pattern))
    matched = FileSystems.match([join(folder, pattern)])[0].metadata_list
    return sorted(file.path for file in matched)


def size(path: str) -> int:
    """Size of a file in bytes."""
    return int(FileSystems.get_filesystem(path).size(path))


def remove(path: str) -> None:
    """Remove a file or a whole folder, if it exists."""
    if is_local(path):
        local = Path(path)
        if local.is_dir():
            shutil.rmtree(local)
        else:
            local.unlink(missing_ok=True)
    elif exists(path) or files(path):
        FileSystems.delete([path])


def move_folder(source: str, target: str) -> None:
    """Move a folder's files; an existing target is replaced."""
    remove(target)
    if is_local(target):
        make_folder(str(Path(target).parent))
        os.rename(source, target)
    else:
        parts = files(source)
        FileSystems.rename(parts, [join(target, part.rpartition("/")[2]) for part in parts])


def count_rows(path: str) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(open_parquet(path).metadata.num_rows)


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns."""
    return open_parquet(path).read(columns=columns, use_threads=False)


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a Parquet file.

    It is read into memory first: a shard's file is small, and Arrow's reading threads, with a Python file, can crash
    the interpreter when it exits.

    Raises:
        ManifestError: not a whole Parquet file.
    """
    try:
        data = pa.BufferReader(read_bytes(path))
        return pq.ParquetFile(data, pre_buffer=False, page_checksum_verification=True)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} is not a readable Parquet file: {error}") from None
