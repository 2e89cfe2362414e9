"""Files, local or of any file system that Beam knows (gs://, s3://)."""

from __future__ import annotations

import io
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
    """A path of this folder's file system."""
    return str(FileSystems.join(*parts))


def is_local(path: str) -> bool:
    """Whether the path is on this machine's file system."""
    return "://" not in path


def write_bytes(path: str, data: bytes) -> None:
    """Write a file so that no reader ever sees half of it: a temporary name first, then a rename.

    Arrow and Spark pass over names that begin with "_", should a worker be killed in between.
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
    """A UTF-8 text file of any file system that Beam knows."""
    return io.TextIOWrapper(FileSystems.open(path), encoding="utf-8-sig")


def make_folder(path: str) -> None:
    """Make a folder and its parents; one that is there already is fine."""
    if is_local(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def files(folder: str, pattern: str = "*") -> list[str]:
    """Paths of the files of a folder that match, sorted; none where the folder is missing."""
    if is_local(folder):  # Beam takes the folder for a pattern too, and cannot quote "[" or "*" in it
        return sorted(str(path) for path in Path(folder).glob(pattern))
    matched = FileSystems.match([join(folder, pattern)])[0].metadata_list
    return sorted(found.path for found in matched)


def size(path: str) -> int:
    """Bytes of a file."""
    return int(FileSystems.get_filesystem(path).size(path))


def remove(path: str) -> None:
    """Remove a file or a whole folder, if it is there."""
    if is_local(path):
        local = Path(path)
        if local.is_dir():
            shutil.rmtree(local)
        else:
            local.unlink(missing_ok=True)
    elif FileSystems.exists(path) or files(path):
        FileSystems.delete([path])


def count_rows(path: str) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(open_parquet(path).metadata.num_rows)


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns."""
    return open_parquet(path).read(columns=columns, use_threads=False)


def open_parquet(path: str) -> pq.ParquetFile:
    """A Parquet file of any file system that Beam knows.

    It is read into memory first: a shard's file is small, and Arrow's reading threads, left with a Python file,
    can bring the interpreter down when it exits.

    Raises:
        ManifestError: not a whole Parquet file.
    """
    try:
        data = pa.BufferReader(read_bytes(path))
        return pq.ParquetFile(data, pre_buffer=False, page_checksum_verification=True)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} is not a readable Parquet file: {error}") from None
