"""Flags for Beam."""

from __future__ import annotations

import logging
import os

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    S3Options,
    StandardOptions,
    WorkerOptions,
)

from pipelines.beam_options import LOCAL_RUNNER, beam_options, is_local_run, threads_per_worker
from pipelines.storage.object_stores import use_options
from rerank_core.errors import ConfigError


@pytest.mark.parametrize(
    "flags", [[], ["--runner=DirectRunner"], ["--runner", "direct"], ["--runner=FnApiRunner"]]
)
def test_the_local_runner_is_chosen_on_purpose(flags: list[str]) -> None:
    options = beam_options(flags)
    assert options.view_as(StandardOptions).runner == LOCAL_RUNNER
    assert is_local_run(options)


OWN = "apache_beam.runners.portability.portable_runner.PortableRunner"  # a name in full, as of a runner of one's own


@pytest.mark.parametrize("runner", ["PortableRunner", "DataflowRunner", "PrismRunner", OWN])
def test_another_runner_stays_as_it_is(runner: str) -> None:
    options = beam_options([f"--runner={runner}"])
    assert options.view_as(StandardOptions).runner == runner
    assert not is_local_run(options)


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        ("Nope", "--runner=Nope cannot be used: .*Valid values are"),
        ("my.own.Runner", "--runner=my.own.Runner cannot be used: No module named 'my'"),
        ("os.path.Runner", "--runner=os.path.Runner cannot be used: .*has no attribute 'Runner'"),
    ],
)
def test_a_runner_that_does_not_exist_is_refused(runner: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        beam_options([f"--runner={runner}"])


def test_known_flags_arrive() -> None:
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    direct = beam_options(flags).view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (2, "multi_processing")
    portable = ["--runner=PortableRunner", "--job_endpoint=localhost:8099", "--environment_type=LOOPBACK"]
    assert not is_local_run(beam_options([*portable, "--parallelism=2"]))


@pytest.mark.parametrize(
    "flags", [["--direct_num_worker=2"], ["--nosuch"], ["nosuch"], ["--direct_num_workers=2", "--x=y"]]
)
def test_an_unknown_flag_is_named(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match=flags[-1]):
        beam_options(flags)


@pytest.mark.parametrize(
    "flags", [["--direct_num_workers=many"], ["--direct_running_mode=fast"], ["--direct_num_workers"]]
)
def test_a_wrong_value_is_told_like_any_other_error(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=flags[0].split("=")[0]):
        beam_options(flags)
    assert capsys.readouterr() == ("", "")  # and not by a page of usage


def test_local_workers_share_the_processors() -> None:
    processors = len(os.sched_getaffinity(0))
    assert threads_per_worker(beam_options([]), 0) == processors
    assert threads_per_worker(beam_options([f"--direct_num_workers={processors}"]), 0) == 1
    assert threads_per_worker(beam_options([f"--direct_num_workers={4 * processors}"]), 0) == 1
    assert threads_per_worker(beam_options(["--direct_num_workers=0"]), 0) >= 1
    assert threads_per_worker(beam_options(["--direct_num_workers=2"]), 5) == 5


LOOPBACK = ["--runner=PortableRunner", "--job_endpoint=localhost:8099", "--environment_type=LOOPBACK"]


@pytest.mark.parametrize("runner", ["PortableRunner", "FlinkRunner", "SparkRunner", "DataflowRunner"])
def test_workers_elsewhere_have_one_thread_unless_configured(runner: str) -> None:
    options = beam_options([f"--runner={runner}"])
    assert threads_per_worker(options, 0) == 1
    assert threads_per_worker(options, 3) == 3
    assert threads_per_worker(options, 0, device="cuda") == 0  # as many as the backend takes


def test_loopback_workers_are_this_process_and_have_its_processors() -> None:
    assert threads_per_worker(beam_options(LOOPBACK), 0) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("given", "level"),
    [([], "WARN")]
    + [
        ([f"--default_sdk_harness_log_level={name}"], level)
        for name, level in {
            "WARNING": "WARN",
            "WARN": "WARN",
            "warning": "WARN",
            "CRITICAL": "ERROR",
            "ERROR": "ERROR",
            "INFO": "INFO",
            "DEBUG": "DEBUG",
        }.items()
    ],
)
@pytest.mark.parametrize("runner", [[], LOOPBACK])
def test_log_levels_have_names_that_python_and_java_job_servers_know(
    runner: list[str], given: list[str], level: str
) -> None:
    options = beam_options([*runner, *given])
    assert options.view_as(WorkerOptions).default_sdk_harness_log_level == level
    assert isinstance(getattr(logging, level), int)  # as Beam's worker looks it up
    assert level in (
        "OFF",
        "ERROR",
        "WARN",
        "INFO",
        "DEBUG",
        "TRACE",
    )  # Beam's SdkHarnessOptions.LogLevel in Java


@pytest.mark.parametrize("level", ["LOUD", "30", "TRACE"])
def test_another_log_level_is_refused(level: str) -> None:
    with pytest.raises(ConfigError, match=f"--default_sdk_harness_log_level={level} is no level.*WARN"):
        beam_options([f"--default_sdk_harness_log_level={level}"])


def test_a_further_pipeline_keeps_what_was_said_of_object_stores() -> None:
    try:
        beam_options(["--s3_endpoint_url=http://one", "--s3_region_name=here", "--job_name=first"])
        later = beam_options(["--s3_region_name=there"])
        stores = later.view_as(S3Options)
        assert (stores.s3_endpoint_url, stores.s3_region_name) == ("http://one", "there")
        assert later.view_as(GoogleCloudOptions).job_name is None
        assert use_options() is later
    finally:
        use_options(PipelineOptions([]))
