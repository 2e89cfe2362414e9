"""Errors of workers with their own class and message: a runner passes them on as text, or adds words of its own."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions

from pipelines.beam_options import is_local_run
from rerank_core.errors import ConfigError, NightError, reported_error, user_error
from schemas.errors import NightrankError

_LAST_LINE = re.compile(r"^((?:\w+\.)*\w+): (.+)$", re.MULTILINE)  # of a traceback: module.Class: message
_BEAM_SUFFIX = re.compile(r" \[while running '[^']*'\]$")
_BEAM_PREFIX = re.compile(r"^Pipeline \S+ failed in state \w+: ")
_TRACEBACK = "Traceback (most recent call last):"
_OF_RUNNERS = ("apache_beam", "grpc", "google", "googleapiclient", "apitools", "urllib", "http")
"""Packages whose errors say what became of a job; an error of any other class is a defect."""

_logger = logging.getLogger("pipelines")


@contextmanager
def worker_errors(options: PipelineOptions | None = None) -> Iterator[None]:
    """Raise a NightrankError of a worker as such, whichever way the runner of the body reports it.

    In this process Beam keeps an error's class and adds "[while running ...]" to its message. For another process it
    raises RuntimeError, whose message holds the worker's traceback. What the system refused a worker (a full disk) is a
    NightrankError too; any other error is a defect and stays as it is, unless a runner elsewhere reports it: that is a
    NightError with the worker's reason, or else the runner's, in one line.

    Args:
        options: of the pipeline that the body runs; None: it runs on this machine.
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
        if options and not is_local_run(options) and (failed := _runner_error(error, options)):
            _logger.debug("the runner reports", exc_info=error)
            raise failed from None
        raise


def _runner_error(error: Exception, options: PipelineOptions) -> NightrankError | None:
    """What a runner elsewhere says of a job that failed, or that it did not take; None for a defect of this process."""
    if isinstance(error, NotImplementedError):  # a flag is missing, which Beam names
        return ConfigError(_first_line(str(error)))
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if type(error) not in (RuntimeError, ValueError, TimeoutError) and packages.isdisjoint(_OF_RUNNERS):
        return None
    runner = f"--runner={options.view_as(StandardOptions).runner}"
    return NightError(
        f"{runner}: {_reason(error, options)}. Nothing was published; the previous run stays in service"
    )


def _reason(error: Exception, options: PipelineOptions) -> str:
    text = str(error)
    if type(error).__name__ == "FutureTimeoutError":
        portable = options.view_as(PortableOptions)
        return (
            f"no job server answers at {portable.job_endpoint} within {portable.job_server_timeout} s "
            "(--job_endpoint, --job_server_timeout)"
        )
    if _TRACEBACK in text:
        last = [f"{name}: {message}" for name, message in _LAST_LINE.findall(text.rpartition(_TRACEBACK)[2])]
        if last:
            return f"a worker failed with {_BEAM_SUFFIX.sub('', last[0])}; the engine's log has its traceback"
    if callable(details := getattr(error, "details", None)):  # of gRPC
        code = getattr(error, "code", lambda: "")()
        return (
            f"the job server answered {getattr(code, 'name', code)} {_first_line(details() or '')}".rstrip()
        )
    reason = f"the job failed: {_first_line(_BEAM_PREFIX.sub('', text))}"
    if "error=2," in reason:  # Java's, without a name
        reason += "; is the program of --environment_option=process_command on every machine of the engine?"
    return reason


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0].rstrip(". ") if lines else ""


def _subclasses(kind: type[NightrankError]) -> Iterator[type[NightrankError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
