"""Flags for Beam."""

from __future__ import annotations

import os

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from pipelines.beam_options import LOCAL_RUNNER, beam_options, is_local_run, threads_per_worker
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
    assert threads_per_worker(beam_options(["--runner=PortableRunner"]), 0) == 0
