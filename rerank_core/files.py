"""Files that a person or another program saved: gzipped or not, with a byte order mark or without, LF or CRLF.

What a file is follows from its first bytes, not from its name: a download may have lost its ".gz", or only its
compression.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from rerank_core.errors import ConfigError

Opener = Callable[[str], AbstractContextManager[BinaryIO]]
"""Opens a path for reading bytes, from the start; pass one that knows gs:// to read from there. What it opens must have
`seek`, unless it is a BufferedReader, as of a pipe."""

_GZIP = b"\x1f\x8b"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def is_address(path: str | Path) -> bool:
    """Whether a path is an address, such as of an object store: "s3://bucket/key", which a Path has as "s3:/"."""
    return _ADDRESS.match(str(path)) is not None


def not_here(path: str | Path, *, written: bool = False) -> str:
    """A message on an address where only a file or a folder of this machine will do: one that is read, or `written`."""
    address = re.sub(":/+", "://", str(path), count=1)
    remedy = (
        "write it to this machine and copy it there"
        if written
        else "copy it to this machine and name the copy"
    )
    return f"{address} is an address, and only a path of this machine will do here: {remedy}"


class UnreadableFile(OSError):
    """A file that is damaged, or not UTF-8; the message says so and what to do, without the file's name."""


def open_local(path: str) -> BinaryIO:
    """The default opener."""
    return open(path, "rb")


def read_lines(path: str | Path, *, opener: Opener = open_local) -> Iterator[bytes]:
    """The lines of a text file, each without its line end; a UTF-8 byte order mark is left out.

    Raises:
        OSError: the file cannot be opened. UnreadableFile: it is UTF-16, or compressed and damaged.
    """
    with opener(str(path)) as raw, _plain(raw) as file:
        try:
            for number, line in enumerate(file):
                yield (line if number else without_mark(line)).rstrip(b"\r\n")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UnreadableFile(f"{error}; it is damaged or truncated: copy it again") from None


def read_text(path: str | Path, *, opener: Opener = open_local) -> str:
    """A whole UTF-8 file, by the rules of `read_lines`.

    Raises:
        OSError: as in `read_lines`. UnreadableFile: it is not UTF-8.
    """
    lines = read_lines(path, opener=opener)
    try:
        return "".join(f"{line.decode()}\n" for line in lines)
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at position {error.start + 1} of a line"
        raise UnreadableFile(f"{where} is not UTF-8; save the file as UTF-8") from None


def read_secret(environment: Mapping[str, str], name: str) -> str:
    """The secret in the variable `name`, or in the file that NAME_FILE names; "" if neither is set.

    Raises:
        ConfigError: both are set, or the file is empty or cannot be read. Values are never quoted.
    """
    value, file = environment.get(name, ""), environment.get(f"{name}_FILE", "")
    if value and file:
        raise ConfigError(f"{name} and {name}_FILE are both set; unset one")
    if not file:
        return value
    try:
        value = read_text(file).strip()
    except OSError as error:
        raise ConfigError(f"{name}_FILE names a file that cannot be read: {type(error).__name__}") from None
    if not value:
        raise ConfigError(f"{name}_FILE names an empty file")
    return value


def is_gzip(path: Path) -> bool:
    """Whether a file is compressed by gzip, whatever its name."""
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def without_mark(line: bytes) -> bytes:
    """The first line of a file without its byte order mark.

    Raises:
        UnreadableFile: the file is UTF-16 or UTF-32.
    """
    for mark, name in _WIDE.items():
        if line.startswith(mark):
            raise UnreadableFile(f"it is {name}; save it as UTF-8, or convert it: iconv -f {name} -t UTF-8")
    return line.removeprefix(codecs.BOM_UTF8)


def plain_or_gz(path: Path) -> Path:
    """`path`, or `path` with ".gz" if only that is there."""
    compressed = path.with_name(f"{path.name}.gz")
    return compressed if not path.exists() and compressed.exists() else path


def _plain(raw: BinaryIO) -> AbstractContextManager[Any]:
    if isinstance(raw, io.BufferedReader):  # may be a pipe, such as of `--config <(envsubst < night.toml)`
        head = raw.peek(len(_GZIP))[: len(_GZIP)]
    else:
        head = raw.read(len(_GZIP))
        raw.seek(0)
    return gzip.GzipFile(fileobj=raw) if head == _GZIP else nullcontext(raw)
