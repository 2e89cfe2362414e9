"""The errors of a night, a training and an evaluation, each with the exit code of the command line.

2: the call or the configuration is wrong. 3: an input cannot be used (log, index, model, judgements, a published run).
4: another run is writing to the output folder. 5: the result may not be published, or a training failed.
"""

from __future__ import annotations

from schemas.errors import NightrankError

USAGE, INPUT, LOCKED, FAILED = 2, 3, 4, 5


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


class ModelError(NightrankError, ValueError):
    """A model folder that cannot be used; the message names the file and the remedy."""

    exit_code = INPUT


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


class NightError(NightrankError, RuntimeError):
    """The night ran but may not be published; the previous run stays in service."""

    exit_code = FAILED


class WriteError(NightError):
    """Writing to a cluster failed; what readers see is unchanged."""


class ScoringFailed(NightrankError, RuntimeError):
    """The scorer fails, not only for single pairs: the job must stop."""

    exit_code = FAILED


class TrainingError(NightrankError, ValueError):
    """The training cannot continue; the message says why and what to change."""

    exit_code = FAILED


class OutOfMemory(RuntimeError):
    """A batch did not fit into the device's memory. Scorers retry with smaller batches; no user sees it."""
