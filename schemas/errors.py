"""The base of every error that a user can act on, and the one of this package."""

from __future__ import annotations


class NightrankError(Exception):
    """An error that a user can act on: its message says what is wrong, where, and what to do.

    The command line prints the message and exits with `exit_code`. Every other exception is a defect.
    """

    exit_code = 1


class ManifestError(NightrankError, ValueError):
    """A manifest is missing, damaged or of a format that this version does not read."""

    exit_code = 3


class Unanswered(ManifestError):
    """A file of a run could not be read, as its object store did not answer: it may be whole. Trying again may help."""

    exit_code = 5
