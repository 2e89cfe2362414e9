"""Every error has a documented exit code; what the machine does to us is named, and a defect stays one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rerank_core import errors
from rerank_core.errors import (
    DiskFull,
    FileError,
    LibraryFailure,
    SourceError,
    is_panic,
    reported_error,
    user_error,
)
from schemas.errors import ManifestError, NightrankError


class PanicException(BaseException):  # as pyo3 names it
    """A native library's."""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left", "a.parquet"),
            DiskFull,
            "cannot write a.parquet: No space left; free",
        ),
        (OSError(errno.EDQUOT, "Quota exceeded"), DiskFull, "cannot write a file: Quota"),
        (
            PermissionError(errno.EACCES, "Permission denied", "log"),
            FileError,
            "cannot use log: Permission denied",
        ),
        (
            ValueError("An IO error: 'x (os error 28) at path \"i/a.store\"'"),
            DiskFull,
            "cannot write i/a.store",
        ),
        (
            RuntimeError("OSError: [Errno 28] No space left on device: 'f' [while running 'Write']"),
            DiskFull,
            "write f",
        ),
        (
            RuntimeError(
                "a.StoreError: [Errno None] the object store answers: slow down: 's3://b/o' [while running 'Write']"
            ),
            FileError,
            "cannot use s3://b/o: the object store answers: slow down;",
        ),
        (RuntimeError("Symlink loop from '/a/set'"), FileError, "cannot use /a/set: Too many levels"),
        (
            OSError("No space left on device (os error 28)"),
            DiskFull,
            "cannot write a file: No space",
        ),  # of pyo3
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), FileError, "check the network"),
        (OSError(errno.EMFILE, "Too many open files"), FileError, "reports: Too many .*limits"),
        (MemoryError(), LibraryFailure, "memory of this machine ran out"),
        (PanicException("index out of bounds"), LibraryFailure, "panicked .index out of bounds"),
        (SourceError("the log"), SourceError, "the log"),
    ],
)
def test_it_is_named(error: BaseException, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        raise user_error(error) or AssertionError("taken for a defect")


@pytest.mark.parametrize(
    "error", [KeyError("a"), RuntimeError("no"), RecursionError(), ValueError("28"), TypeError()]
)
def test_a_defect_is_none_of_them(error: Exception) -> None:
    assert user_error(error) is None
    assert reported_error(f"Traceback ...\n{type(error).__name__}: {error}") is None
    assert not is_panic(error)


def test_a_file_that_is_really_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere") as caught:
        (tmp_path / "nowhere").read_text()
    assert str(tmp_path / "nowhere") in str(user_error(caught.value))


def test_the_last_error_of_a_traceback_counts() -> None:
    text = (
        "OSError: [Errno 13] Permission denied: 'a'\n\nDuring ...\nOSError: [Errno 28] No space left: 'b'\n"
    )
    assert "cannot write b" in str(reported_error(text))
    assert isinstance(reported_error("Traceback\nMemoryError"), LibraryFailure)


# --- exit codes


def subclasses(error: type[NightrankError]) -> Iterator[type[NightrankError]]:
    for child in error.__subclasses__():
        yield child
        yield from subclasses(child)


PRODUCT = [
    error for error in subclasses(NightrankError) if error.__module__ in ("schemas.errors", errors.__name__)
]


@pytest.mark.parametrize("error", PRODUCT)
def test_an_error_has_an_exit_code_and_says_when_it_is_raised(error: type[NightrankError]) -> None:
    assert error.exit_code in (errors.USAGE, errors.INPUT, errors.LOCKED, errors.FAILED, errors.HELD)
    assert error.__doc__


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError, 2),
        (errors.OutputError, 2),
        (errors.SourceError, 3),
        (errors.ModelError, 3),
        (ManifestError, 3),
        (errors.Locked, 4),
        (errors.NightError, 5),
        (errors.WriteError, 5),
        (errors.TrainingError, 5),
    ],
)
def test_exit_codes_stay(error: type[NightrankError], code: int) -> None:
    assert error.exit_code == code


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, errors.DiskFull, 5),
        (errno.EDQUOT, errors.DiskFull, 5),
        (errno.EFBIG, errors.DiskFull, 5),
        (errno.EACCES, errors.OutputError, 2),
        (errno.ENOTDIR, errors.OutputError, 2),
    ],
)
def test_a_full_disk_is_no_wrong_call(number: int, kind: type[NightrankError], code: int) -> None:
    found = errors.output_error(OSError(number, os.strerror(number), "/out/file"), "cannot write to /out")
    assert type(found) is kind
    assert found.exit_code == code
    assert "/out" in str(found)
