"""Errors of workers with their own class and message: a runner passes them on as text, or adds words of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rerank_core.errors import reported_error, user_error
from schemas.errors import NightrankError

_LAST_LINE = re.compile(r"^((?:\w+\.)+\w+): (.+)$", re.MULTILINE)  # of a traceback: module.Class: message
_BEAM_SUFFIX = re.compile(r" \[while running '[^']*'\]$")


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise a NightrankError of a worker as such, whichever way the runner of the body reports it.

    In this process Beam keeps an error's class and adds "[while running ...]" to its message. For another process it
    raises RuntimeError, whose message holds the worker's traceback. What the system refused a worker (a full disk) is a
    NightrankError too; any other error is a defect and stays as it is.
    """
    try:
        yield
    except NightrankError as error:
        raise type(error)(_BEAM_SUFFIX.sub("", str(error))) from None
    except Exception as error:
        kinds = {f"{kind.__module__}.{kind.__name__}": kind for kind in _subclasses(NightrankError)}
        reported = [(kinds[name], text) for name, text in _LAST_LINE.findall(str(error)) if name in kinds]
        if reported:
            kind, message = reported[-1]
            raise kind(_BEAM_SUFFIX.sub("", message)) from None
        if refused := reported_error(str(error)) or user_error(error):
            raise refused from None
        raise


def _subclasses(kind: type[NightrankError]) -> Iterator[type[NightrankError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
