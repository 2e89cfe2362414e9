"""Beam's flags, checked: an unknown one is an error, and the local runner is chosen on purpose."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    S3Options,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.runners import create_runner

from pipelines.storage.object_stores import use_options
from rerank_core.errors import ConfigError

# DirectRunner tries Prism first, which lost rows without an error, and falls back by what it finds
# on the machine. This one is in Beam itself and the same everywhere.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
LOCAL_NAMES = ("directrunner", "direct", "fnapirunner", "fnapi", LOCAL_RUNNER.lower())
# Levels by names that Python's logging and the Java job servers of Flink and Spark both know; a job server refuses
# any other, such as Python's own WARNING, with a bare INTERNAL.
LOG_LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR", "FATAL": "ERROR"}
LOG_LEVELS |= {level: level for level in ("ERROR", "WARN", "INFO", "DEBUG")}


def beam_options(flags: Sequence[str]) -> PipelineOptions:
    """Options of a pipeline from command-line flags.

    Without `--runner`, and for DirectRunner, it is Beam's FnApiRunner in this process.

    Raises:
        ConfigError: a flag that no installed runner knows (Beam itself would drop it with a warning), a value that
            does not fit it, or a runner that does not exist or is not installed.
    """
    unknown = _unknown(flags)
    if unknown:
        raise ConfigError(
            f"Beam knows no flag {' '.join(unknown)!r}; see its runner's documentation for the name"
        )
    options = PipelineOptions(list(flags))
    standard = options.view_as(StandardOptions)
    if standard.runner is None or standard.runner.lower() in LOCAL_NAMES:
        standard.runner = LOCAL_RUNNER
    else:
        _check_runner(standard.runner)
    workers = options.view_as(WorkerOptions)
    # At INFO, Beam's own level, every worker process logs its start and its end in many lines.
    workers.default_sdk_harness_log_level = _log_level(workers.default_sdk_harness_log_level or "WARN")
    _keep_stores(options)
    use_options(options)
    return options


def _keep_stores(options: PipelineOptions) -> None:
    """Carry over the options of object stores from the last pipeline of this process, unless new ones are given.

    Beam's file systems have one set of options in a process, those of its newest pipeline: after a night that was given
    an endpoint, the steps that follow would look elsewhere.
    """
    earlier = use_options().get_all_options(drop_default=True)
    given = options.get_all_options(drop_default=True)
    for name in earlier.keys() - given.keys():
        if name.startswith("s3_"):
            setattr(options.view_as(S3Options), name, earlier[name])
        elif name.startswith(("gcs_", "gcp_", "impersonate_")):
            setattr(options.view_as(GoogleCloudOptions), name, earlier[name])


def is_local_run(options: PipelineOptions) -> bool:
    """Whether the workers are on this machine, so that they can share its files."""
    return bool(options.view_as(StandardOptions).runner == LOCAL_RUNNER)


def runs_in_this_process(options: PipelineOptions) -> bool:
    """Whether the local runner's workers are threads of this process."""
    return is_local_run(options) and options.view_as(DirectOptions).direct_running_mode != "multi_processing"


def is_loopback(options: PipelineOptions) -> bool:
    """Whether an engine's workers are threads of this process, which then does all the work of the Python stages."""
    return str(options.view_as(PortableOptions).environment_type).upper() == "LOOPBACK"


def threads_per_worker(options: PipelineOptions, threads: int, *, device: str = "cpu") -> int:
    """Threads of one worker's model.

    Args:
        threads: as configured; 0: this machine's processors, shared among its workers. Elsewhere it is 1, since an
            engine starts its workers by its own count of processors; on a GPU there, as many as the backend takes.
        device: what the model runs on.
    """
    processors = len(os.sched_getaffinity(0))
    if threads:
        return threads
    if is_local_run(options):
        workers = options.view_as(DirectOptions).direct_num_workers or os.cpu_count() or 1
        return max(1, processors // workers)
    if is_loopback(options):
        return processors
    return 1 if device == "cpu" else 0


def _log_level(name: str) -> str:
    level = LOG_LEVELS.get(name.upper())
    if level is None:
        raise ConfigError(
            f"--default_sdk_harness_log_level={name} is no level that every runner knows; choose one of "
            f"{', '.join(LOG_LEVELS)}"
        )
    return level


def _check_runner(name: str) -> None:
    try:
        create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(f"--runner={name} cannot be used: {error}") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # argparse prints a page of usage and exits
        raise ConfigError(f"a flag for Beam cannot be used: {message}")


def _unknown(flags: Sequence[str]) -> list[str]:
    parser = _Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in [PipelineOptions, *_all_subclasses(PipelineOptions)]:
        add = options.__dict__.get("_add_argparse_args")
        if add is not None:
            add.__func__(options, parser)
    for action in parser._actions:
        action.required = False
    return parser.parse_known_args(list(flags))[1]


def _all_subclasses(cls: type) -> list[type]:
    direct: list[type] = cls.__subclasses__()
    return [found for sub in direct for found in (sub, *_all_subclasses(sub))]
