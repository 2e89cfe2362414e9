"""Errors of workers, as this process and other processes report them."""

from __future__ import annotations

import pytest

from pipelines.nightly.worker_errors import worker_errors
from rerank_core import errors
from rerank_core.errors import ScoringFailed, SourceError
from schemas.errors import ManifestError, NightrankError

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NightrankError)
]
KINDS.remove(NightrankError)
OF_ANOTHER_PROCESS = """Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in apache_beam.runners.common.DoFnRunner.process
rerank_core.errors.ScoringFailed: no file: check scoring.model

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "pipelines/nightly/stages.py", line 244, in handle
    raise SourceError("not this line")
{kind}: no file: check scoring.model [while running 'ScoreCandidates/ParDo(_Handle)-ptransform-69']

"""


def raised(error: Exception) -> Exception:
    with (
        pytest.raises(type(error) if not isinstance(error, RuntimeError) else Exception) as caught,
        worker_errors(),
    ):
        raise error
    return caught.value


def test_beams_words_are_taken_off() -> None:
    error = raised(SourceError("the log is cut [while running 'ReadEvents/FlatMap(read_file)']"))
    assert (type(error), str(error)) == (SourceError, "the log is cut")


@pytest.mark.parametrize("kind", [*KINDS, ManifestError])
def test_an_error_of_another_process_gets_its_class_back(kind: type[Exception]) -> None:
    error = raised(RuntimeError(OF_ANOTHER_PROCESS.format(kind=f"{kind.__module__}.{kind.__name__}")))
    assert (type(error), str(error)) == (kind, "no file: check scoring.model")


def test_a_defect_keeps_its_traceback() -> None:
    defect = RuntimeError(
        "Traceback (most recent call last):\n  File ...\nbuiltins.KeyError: 'ScoringFailed: x'"
    )
    assert raised(defect) is defect
    assert not isinstance(raised(ZeroDivisionError("1")), ScoringFailed)


def test_an_error_of_the_same_name_in_another_library_is_a_defect() -> None:
    defect = RuntimeError("Traceback (most recent call last):\n  File ...\nyaml.scanner.ConfigError: x")
    assert raised(defect) is defect
