"""One night: it is prepared, its graph runs on any Beam runner, and what was written is counted before it is published.

From the shell: `nightrank nightly --config FILE`.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from pipelines.beam_options import beam_options, is_local_run, is_loopback
from pipelines.nightly import progress
from pipelines.nightly.deadline import in_time
from pipelines.nightly.graph import build
from pipelines.nightly.manifest import make_manifest
from pipelines.nightly.models import Loader
from pipelines.nightly.outcome import publish_or_hold, with_drift
from pipelines.nightly.prepare import Night, prepare
from pipelines.nightly.queries import merge_queries
from pipelines.nightly.verify import verify
from pipelines.nightly.worker_errors import worker_errors
from pipelines.storage import filesystem
from pipelines.storage.clean import clean
from pipelines.storage.lock import lock
from pipelines.storage.runs import MANIFEST
from pipelines.storage.vectors import keep_within
from rerank_core.config.night import Config
from rerank_core.errors import NightError, user_error
from rerank_core.trace import span
from schemas.errors import ManifestError, Unanswered
from schemas.manifest import Manifest

_logger = logging.getLogger("pipelines")


def run(
    config: Config,
    *,
    run_date: datetime.date,
    beam_flags: Sequence[str] = (),
    load: Loader | None = None,
    show: Callable[[progress.Progress], None] | None = None,
    set_latest: bool = False,
    finish_by: datetime.datetime | None = None,
) -> Manifest:
    """Run one night and publish it.

    Args:
        config: the night's configuration.
        run_date: last day of the log's window.
        beam_flags: flags for Beam; without --runner the job runs in this process.
        load: makes the scorer, in place of the configured model; must be picklable.
        show: called with the progress twice a second, if the workers are on this machine.
        set_latest: move `latest.json` to this run, even if it names a run of a later date.
        finish_by: by when it must be published, with its time zone; what was not reached keeps its earlier list.

    Returns:
        The manifest of the published run.

    Raises:
        ConfigError, SourceError, ModelError, JudgementError, OutputError: the night could not start.
        NightError, ScoringFailed, DiskFull, FileError, LibraryFailure: it may not be published; the previous run
            stays in service, and nothing but dead letters stays in staging.
        NightHeld: it differs too much from earlier nights; it is kept whole, and the previous run stays in service.
    """
    started = time.monotonic()
    options = beam_options(beam_flags)
    find = functools.partial(
        prepare, config, run_date=run_date, options=options, load=load, finish_by=finish_by
    )
    finish = functools.partial(
        _finish, config=config, options=options, started=started, show=show, set_latest=set_latest
    )
    with span("prepare"):
        night = in_time(finish_by, find)
    try:
        return finish(night)
    except _EarlierRunDamaged as error:
        again = in_time(finish_by, lambda: find(every_byte=True))
        if again.previous == night.previous:  # that run is whole, so the same would come of it
            raise
        _logger.warning("%s; the night starts again, and does not reuse that run", error)
        return finish(again)


class _EarlierRunDamaged(ManifestError):
    """Workers met damage in a run that the night reuses."""


def _finish(
    night: Night,
    *,
    config: Config,
    options: PipelineOptions,
    started: float,
    show: Callable[[progress.Progress], None] | None,
    set_latest: bool,
) -> Manifest:
    """Run a night that was prepared, and publish it."""
    with lock(config.output.path, night.run.run_id) as held:
        clean(config.output.path)
        with _cleaned_up(night.run.staging):
            with span("run graph"):
                _run_graph(night, options, show)
            with span("merge queries"):
                merge_queries(night.run)
            with span("verify"):
                verified = verify(night.run, config)
            manifest = make_manifest(night, verified, seconds=time.monotonic() - started)
            with span("measure drift"):
                manifest = with_drift(config, manifest, staging=night.run.staging)
            held.check()
            with span("publish"):
                published = publish_or_hold(config.output.path, manifest, set_latest=set_latest)
            if night.run.vectors:
                with span("keep vectors"):
                    keep_within(config.output.path, config.reuse.vectors_mb)
            return published


@contextlib.contextmanager
def _cleaned_up(staging: str) -> Iterator[None]:
    """Leave no staged files behind a night that is not published, but the dead letters of one that came to its end."""
    try:
        yield
    except BaseException as error:
        keep = "dead_letters" if isinstance(error, NightError) else ""
        # Workers' threads may still write; the next night removes the rest.
        with contextlib.suppress(Exception):
            _remove(staging, keep=keep)
        if known := user_error(error):
            raise known from None
        raise


def _remove(staging: str, *, keep: str) -> None:
    """Remove a run's staging folder, but for one table; "": all of it."""
    if not filesystem.is_local(staging) and filesystem.exists(filesystem.join(staging, MANIFEST)):
        return  # it is the run's own place, and the run was published: only what comes after that failed
    if not keep:
        filesystem.remove(staging)
        return
    for name in {path.partition("/")[0] for path in filesystem.listing(staging)} - {keep}:
        with contextlib.suppress(OSError):
            filesystem.remove(filesystem.join(staging, name))


def _run_graph(
    night: Night, options: PipelineOptions, show: Callable[[progress.Progress], None] | None
) -> None:
    if options.view_as(DirectOptions).direct_running_mode == "multi_processing":
        _silence_workers()
    if is_loopback(options):
        _silence_readers()
    with span("build graph"):
        pipeline = beam.Pipeline(options=options)
        build(pipeline, night)
    folder, show = night.run.progress, show or (lambda _: None)
    watching = progress.watch(Path(folder), show) if folder else contextlib.nullcontext()
    try:
        with watching, worker_errors(options):
            job = pipeline.run()
            try:
                job.wait_until_finish()
            except KeyboardInterrupt:  # or SIGTERM: otherwise an engine would go on scoring
                if not is_local_run(options):
                    with contextlib.suppress(Exception):
                        job.cancel()
                raise
    except Unanswered:
        raise
    except ManifestError as error:  # of the only published run that is read here
        raise _EarlierRunDamaged(str(error)) from None


@functools.cache
def _silence_readers() -> None:
    """Let threads of LOOPBACK workers, in this process, end without a traceback when an engine hangs up on them."""
    shown = threading.excepthook

    def hook(raised: threading.ExceptHookArgs) -> None:
        name = raised.thread.name if raised.thread else ""
        reads = name.startswith(("run_worker_", "read_state"))
        hung_up = reads and raised.exc_type.__module__.startswith("grpc")
        if not hung_up and name != "read_grpc_client_inputs":
            shown(raised)

    threading.excepthook = hook


def _silence_workers() -> None:
    """Where this process prints its errors elsewhere (the command line does), close descriptor 2 to worker processes.

    They inherit it, and Beam logs thirty lines there for each, whatever its level. What fails in one is raised here.
    """
    with contextlib.suppress(OSError, AttributeError):  # a stream without a descriptor, as in tests
        if sys.stderr.fileno() != 2:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
