"""Errors of workers, as this process and other processes report them."""

from __future__ import annotations

import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.beam_options import beam_options
from pipelines.nightly.worker_errors import worker_errors
from rerank_core import errors
from rerank_core.errors import ConfigError, NightError, ScoringFailed, SourceError
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


FLINK = beam_options(["--runner=FlinkRunner", "--job_endpoint=here:8099", "--job_server_timeout=7"])


def raised(error: Exception, options: PipelineOptions | None = None) -> Exception:
    with pytest.raises(Exception) as caught, worker_errors(options):  # noqa: PT011
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


# --- runners elsewhere

DEFECT = "Traceback (most recent call last):\n  File x\n{} [while running 'S/ParDo(x)']"
FAILED = "Pipeline BeamApp-1_2 failed in state FAILED: java.lang.RuntimeException: Error received from SDK harness: "


class RpcError(grpc.RpcError):
    """An error of a call, as gRPC makes it."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "failed to connect to all addresses\nmore"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError(
                FAILED + DEFECT.format("ValueError: first") + "\n" + DEFECT.format("yaml.Error: a: b")
            ),
            "a worker failed with yaml.Error: a: b; the engine's log",
        ),
        (
            RuntimeError(FAILED + DEFECT.format("KeyError: 'a'")),
            "a worker failed with KeyError: 'a'; the engine's log",
        ),
        (
            RuntimeError(
                "Pipeline B_1 failed in state FAILED: java.io.IOException: error=2, No such file\n at x"
            ),
            "the job failed: java.io.IOException: error=2, No such file; is the program of",
        ),
        (
            RuntimeError("Unable to fetch remote job server jar at X"),
            "the job failed: Unable to fetch remote job",
        ),
        (grpc.FutureTimeoutError(), "no job server answers at here:8099 within 7 s"),
        (RpcError(), "the job server answered UNAVAILABLE failed to connect to all addresses"),
    ],
)
def test_a_runner_elsewhere_is_told_in_one_line(error: Exception, reason: str) -> None:
    told = raised(error, FLINK)
    assert type(told) is NightError
    assert str(told).startswith(f"--runner=FlinkRunner: {reason}")
    assert str(told).endswith("Nothing was published; the previous run stays in service")
    assert "\n" not in str(told)
    assert raised(error) is error  # as a defect, where no runner elsewhere may have said so


def test_a_flag_that_is_missing_is_a_wrong_call() -> None:
    told = raised(NotImplementedError("You must specify a --job_endpoint when using X."), FLINK)
    assert (type(told), str(told)) == (ConfigError, "You must specify a --job_endpoint when using X")


@pytest.mark.parametrize("error", [TypeError("cannot pickle"), KeyError("x"), ZeroDivisionError("1")])
def test_a_defect_of_this_process_stays_one_with_a_runner_elsewhere(error: Exception) -> None:
    assert raised(error, FLINK) is error


@pytest.mark.parametrize("kind", [*KINDS, ManifestError])
def test_an_error_that_an_engine_reports_gets_its_class_back(kind: type[Exception]) -> None:
    text = FAILED + OF_ANOTHER_PROCESS.format(kind=f"{kind.__module__}.{kind.__name__}")
    error = raised(RuntimeError(text), FLINK)
    assert (type(error), str(error)) == (kind, "no file: check scoring.model")
