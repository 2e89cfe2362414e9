"""Errors of workers as the driver's own: a runner hands them on as text, or with its own words added."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rerank_core.errors import ConfigError, JudgementError, ModelError, ScoringFailed, SourceError
from schemas.errors import ManifestError

KINDS = {
    kind.__name__: kind
    for kind in (ScoringFailed, ModelError, SourceError, JudgementError, ManifestError, ConfigError)
}
"""What a worker may raise that a person can act on; anything else is a defect and keeps its traceback."""

_LAST_LINE = re.compile(r"^(?:\w+\.)+(\w+): (.+)$", re.MULTILINE)  # of a traceback: module.Class: message
_BEAM_WORDS = re.compile(r" \[while running '[^']*'\]$")


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise an error of one of `KINDS` as just that, whichever way the body's runner told it.

    In this process Beam keeps an error's class and adds "[while running ...]" to its message. From another
    process it raises RuntimeError, whose message holds the worker's traceback.
    """
    try:
        yield
    except tuple(KINDS.values()) as error:
        raise type(error)(_BEAM_WORDS.sub("", str(error))) from None
    except Exception as error:
        told = [found for found in _LAST_LINE.findall(str(error)) if found[0] in KINDS]
        if not told:
            raise
        kind, message = told[-1]
        raise KINDS[kind](_BEAM_WORDS.sub("", message)) from None
