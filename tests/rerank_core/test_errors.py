"""Every error has an exit code of the documented list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rerank_core import errors
from schemas.errors import ManifestError, NightrankError


def subclasses(error: type[NightrankError]) -> Iterator[type[NightrankError]]:
    for child in error.__subclasses__():
        yield child
        yield from subclasses(child)


PRODUCT = [
    error for error in subclasses(NightrankError) if error.__module__ in ("schemas.errors", errors.__name__)
]


@pytest.mark.parametrize("error", PRODUCT)
def test_an_error_has_an_exit_code_and_says_when_it_is_raised(error: type[NightrankError]) -> None:
    assert error.exit_code in (errors.USAGE, errors.INPUT, errors.LOCKED, errors.FAILED)
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
