"""The errors of a night, a training and an evaluation, each with the exit code of the command line.

2: the call or the configuration is wrong. 3: an input cannot be used (log, index, model, judgements, a published run).
4: another run is writing to the output folder. 5: the result may not be published, or a training failed.
6: the night is whole, but was held back from publishing, as it differs too much from earlier nights.
"""

from __future__ import annotations

import errno
import os
import re

from schemas.errors import NightrankError
from schemas.manifest import Manifest

USAGE, INPUT, LOCKED, FAILED, HELD = 2, 3, 4, 5, 6


class ConfigError(NightrankError, ValueError):
    """The configuration cannot be used; the message names the field, the value and the remedy."""

    exit_code = USAGE


class OutputError(NightrankError, ValueError):
    """The output folder cannot be used; the message names it and the remedy."""

    exit_code = USAGE


class Locked(OutputError):
    """Another run is writing to the output folder."""

    exit_code = LOCKED


class SourceError(NightrankError, ValueError):
    """The log or the index cannot be used at all; the message names it and the remedy."""

    exit_code = INPUT


class SourceUnavailable(SourceError):
    """The log or the index did not answer, or was replaced while it was read: the same night may succeed later."""

    exit_code = FAILED


class ModelError(NightrankError, ValueError):
    """A model folder that cannot be used; the message names the file and the remedy."""

    exit_code = INPUT


class RegistryError(ModelError):
    """A registry of models, or one of its models, cannot be used; the message names the file and the remedy."""


class MissingEngine(NightrankError, ImportError):
    """A backend's inference engine is not installed; the message names the extra that brings it."""

    exit_code = INPUT


class JudgementError(NightrankError, ValueError):
    """A file of judgements cannot be used; the message names file, line, value and remedy."""

    exit_code = INPUT


class CalibrationError(NightrankError, ValueError):
    """A calibration that cannot be read, or judged scores on which none can be fitted."""

    exit_code = INPUT


class FusionError(NightrankError, ValueError):
    """Fusion weights that cannot be read or used, or judged sets on which none can be fitted."""

    exit_code = INPUT


class QueryNotFound(NightrankError, ValueError):
    """The run does not have the query; the message names the nearest ones."""

    exit_code = INPUT


class RunRemoved(NightrankError, RuntimeError):
    """The run that a reader reads was removed by retention since it was opened; the message says to open it again."""

    exit_code = INPUT


class NightError(NightrankError, RuntimeError):
    """The night ran but may not be published; the previous run stays in service."""

    exit_code = FAILED


class NightHeld(NightrankError, RuntimeError):
    """The night is whole but held back: it differs too much from earlier ones, which stay in service.

    Args:
        manifest: of the run that was held back.
    """

    exit_code = HELD

    def __init__(self, message: str, manifest: Manifest | None = None) -> None:
        super().__init__(message)
        self.manifest = manifest


class WriteError(NightError):
    """Writing to a cluster failed; what readers see is unchanged."""


class ScoringFailed(NightrankError, RuntimeError):
    """The scorer fails, not only for single pairs: the job must stop."""

    exit_code = FAILED


class TrainingError(NightrankError, ValueError):
    """The training cannot continue; the message says why and what to change."""

    exit_code = FAILED


class FileError(NightrankError):
    """The system refuses a file, or else a connection; the message names the file, if there is one, and the reason."""

    exit_code = INPUT


class DiskFull(FileError):
    """There is no space left to write; nothing was published."""

    exit_code = FAILED


class LibraryFailure(NightrankError, RuntimeError):
    """A library gave up on its input (a panic), or the machine's memory ran out; the message says which."""

    exit_code = FAILED


class OutOfMemory(RuntimeError):
    """A batch did not fit into the device's memory. Scorers retry with smaller batches; no user sees it."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OS_ERROR = re.compile(r"\(os error (\d+)\)(?: at path \"([^\"]*)\")?")
_ERRNO = re.compile(r"\[Errno (\d+)\] ([^:\[]+)(?:: '([^']*)')?")
_NO_ERRNO = re.compile(r"\[Errno None\] (.+?): '([^']*)'")  # of what an object store answered


def user_error(error: BaseException, *, path: str | os.PathLike[str] = "") -> NightrankError | None:
    """What the machine did to us as an error that a user can act on; None for a defect.

    Args:
        error: any exception. Those of the system, of memory and of a native library (a panic of pyo3, which is no
            Exception) are none of ours.
        path: the file that was read or written, if the error itself does not name it.
    """
    if isinstance(error, NightrankError):
        return error
    # A Rust library has the system's number in the text of whatever class it raises, an OSError without number too.
    native = _OS_ERROR.search(str(error))
    if native and getattr(error, "errno", None) is None:
        return _system_error(int(native[1]), os.strerror(int(native[1])), native[2] or str(path))
    if isinstance(error, OSError):
        return _system_error(error.errno, error.strerror or str(error), str(error.filename or path))
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from "):  # of Path.resolve
        return _system_error(errno.ELOOP, os.strerror(errno.ELOOP), str(error).partition("'")[2].rstrip("'"))
    if isinstance(error, ValueError) and str(error).startswith("Unable to get filesystem"):  # of Beam
        return ConfigError(
            f"{str(error).rpartition('Path specified: ')[2]}: its file system is not installed; pip install "
            "'nightrank[gcs]' for gs://, 'nightrank[s3]' for s3://, or name a local path"
        )
    if isinstance(error, RuntimeError) and "[while running '" in str(error):  # of Beam
        return reported_error(str(error))
    if isinstance(error, MemoryError):
        return LibraryFailure(
            "the memory of this machine ran out; lower output.queries_per_shard or scoring.max_tokens, or use fewer "
            "workers"
        )
    if is_panic(error):
        return LibraryFailure(
            f"a native library panicked ({error}); if it read an index or a model, make it again"
        )
    return None


def output_error(error: OSError, message: str) -> NightrankError:
    """What the system refuses of an output folder: an OutputError of this message, or DiskFull, which no call mends."""
    known = user_error(error)
    return known if isinstance(known, DiskFull) else OutputError(message)


def is_panic(error: BaseException) -> bool:
    """Whether a native library in Rust panicked; pyo3's class for it is no Exception, and cannot be imported."""
    return type(error).__name__ == "PanicException"


def reported_error(text: str) -> NightrankError | None:
    """`user_error` of an error of which only the text is left, such as a traceback that another process sent."""
    for line in reversed(text.splitlines()):
        kind, _, message = line.partition(": ")
        if match := _ERRNO.match(message):
            return _system_error(int(match[1]), match[2], match[3] or "")
        if match := _NO_ERRNO.match(message):
            return _system_error(None, match[1], match[2])
        if kind == "MemoryError" or line == "MemoryError":
            return user_error(MemoryError())
    return None


def _system_error(number: int | None, reason: str, path: str) -> FileError:
    reason = reason.strip()
    if number in _FULL:
        remedy = "free some space or choose another folder, then start again"
        return DiskFull(f"cannot write {path or 'a file'}: {reason}; {remedy}")
    if not path:  # such as a refused connection, or too many open files
        return FileError(
            f"the system reports: {reason}; check the network, and this machine's disks and limits"
        )
    return FileError(f"cannot use {path}: {reason}; check that it is there and may be read or written")
