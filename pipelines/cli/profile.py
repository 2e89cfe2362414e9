"""`nightrank nightly --profile FILE`: where the time of a night goes, as a trace that Perfetto shows."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rerank_core import trace
from rerank_core.errors import ConfigError


@contextlib.contextmanager
def profiled(file: Path | None) -> Iterator[None]:
    """Record the body, and write its trace to a file, also where the body fails; None: record nothing.

    Raises:
        ConfigError: the file cannot be written; before the body, as far as that can be seen.
    """
    if file is None:
        yield
        return
    _write(file, "")  # before a night is spent on it
    with tempfile.TemporaryDirectory(prefix="nightrank-trace-", ignore_cleanup_errors=True) as folder:
        try:
            with trace.recording(Path(folder)):
                yield
        finally:
            _write(file, json.dumps(trace.join(Path(folder))))


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--profile cannot write {file} ({error.strerror})") from None
