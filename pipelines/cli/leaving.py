"""How a command ends: by an error, a signal, or a reader that goes away; each with its exit code and one line."""

from __future__ import annotations

import atexit
import contextlib
import errno
import faulthandler
import io
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import IO, Any, NoReturn

from pipelines.cli import console
from rerank_core.errors import FAILED, user_error
from rerank_core.redact import redact

CLEAN_UP_SECONDS = 10.0
"""How long an interrupted command may clean up: Beam waits for its workers' threads, which may hang."""

_native: list[IO[bytes]] = []  # what was printed to descriptor 2, in one file
_received: list[int] = []  # signals that a command unwinds from

_INTERRUPTED = (
    "interrupted; what was published before is unchanged, and the same command can be started again"
)


class Patient:
    """A standard stream without secrets, which goes on when its reader is gone (`| head`), writing to nowhere.

    Args:
        stream: standard output or standard error.
        optional: whether nothing at all that happens to the stream is an error; else a full disk is one.
    """

    def __init__(self, stream: IO[str], *, optional: bool) -> None:
        self._stream, self._optional = stream, optional

    def write(self, text: str) -> int:
        if text == "":  # by which click finds out what a stream takes, and would swallow the error
            return 0
        with self._unread():
            # Standard output is data: what only looks like a secret there is somebody's passage or query.
            self._stream.write(redact(text, guess=self._optional))
        return len(text)

    def flush(self) -> None:
        with self._unread():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _unread(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # so does what is buffered, and what libraries print
            os.close(nowhere)
            if error.errno != errno.EPIPE and not self._optional:
                raise OSError(error.errno, error.strerror, "standard output") from None


def message_of(error: BaseException) -> tuple[int, str] | None:
    """(exit code, message) of whatever ended a command; None for a defect."""
    if _received or isinstance(error, KeyboardInterrupt):  # Beam makes a RuntimeError of it
        return 128 + (_received[0] if _received else signal.SIGINT), _INTERRUPTED
    known = user_error(error)
    return (known.exit_code, str(known)) if known else None


def interrupted() -> bool:
    """Whether a signal is ending this process: nothing more may begin."""
    return bool(_received)


def prepare() -> None:
    """Let signals end the process with a line, for now at once, and survive readers that go away."""
    _on_signals(_end_at_once)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What its encoding does not have is escaped, as on standard error.
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stdout is not None:
        sys.stdout = Patient(sys.stdout, optional=False)
    if sys.stderr is not None:
        _take_descriptor_2()


def _take_descriptor_2() -> None:
    """Keep what native libraries print (a panic: its stack) for a defect: an error that is understood is one line."""
    own = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)
    faulthandler.enable(own)
    sys.stderr = Patient(own, optional=True)
    with contextlib.suppress(OSError):  # no space for a temporary file: it is printed
        _native.append(tempfile.TemporaryFile())  # noqa: SIM115  closed with the process
        os.dup2(_native[0].fileno(), 2)


def begin(*, quiet: bool) -> None:
    """A command begins: SIGINT and SIGTERM now unwind, so that it cleans up. Without effect unless `prepare`d.

    Args:
        quiet: nothing but errors is printed, of libraries' warnings too.
    """
    if signal.getsignal(signal.SIGTERM) is _end_at_once:
        _on_signals(_interrupt)
        if quiet:
            logging.disable(logging.WARNING)
            warnings.simplefilter("ignore")


@contextlib.contextmanager
def at_the_end() -> Iterator[None]:
    """Leave the process with the exit code of the body; a defect prints its traceback."""
    try:
        yield
    except SystemExit as wanted:
        leave(wanted.code if isinstance(wanted.code, int) else int(wanted.code is not None))
    except BaseException as error:
        if known := message_of(error):  # before or after a command, such as in --help
            console.print_error(known[1])
            leave(known[0])
        for kept in _native:
            kept.seek(0)
            sys.stderr.write(redact(kept.read().decode("utf-8", "replace"))[-20_000:])
        traceback.print_exc()
        leave(1)
    leave(0)


def _on_signals(handler: Callable[[int, FrameType | None], Any]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    console.print_error(_INTERRUPTED)
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, lambda *_: os._exit(128 + number))  # the next one ends the process at once
    _received.append(number)
    logging.disable(logging.CRITICAL)  # Beam would log the traceback
    _end_in_time(128 + number, _INTERRUPTED)
    raise KeyboardInterrupt


def leave(code: int) -> NoReturn:
    """End the process with everything flushed, whatever threads still run: Python would wait for Beam's."""
    _end_in_time(code)
    atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stderr, sys.stdout):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            console.print_error(str(user_error(error)))
            code = code or FAILED
    os._exit(code)


def _end_in_time(code: int, message: str = "") -> None:
    """End the process after CLEAN_UP_SECONDS, if it still runs."""

    def end() -> None:
        if message:
            console.print_error(message)
        os._exit(code)

    watch = threading.Timer(CLEAN_UP_SECONDS, end)
    watch.daemon = True
    watch.start()
