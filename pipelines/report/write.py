"""Writes a run's report beside its manifest. The run's tables never change, and the report is no part of them."""

from __future__ import annotations

import contextlib

from pipelines.report.failed import failed_html, failed_path, last_failed, reranking_failed
from pipelines.report.night import Sources, night_page
from pipelines.report.sample import Run
from pipelines.report.verdict import without_report
from pipelines.report.week import week_page
from pipelines.storage.filesystem import join, write_bytes
from pipelines.storage.held import find_held, held_runs
from pipelines.storage.plan_records import read_plan
from pipelines.storage.runs import (
    HELD,
    RUNS,
    find_run,
    held_path,
    latest,
    moved,
    open_run,
    read_manifest,
    run_ids,
    run_path,
)
from rerank_core.errors import output_error
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord

REPORT, WEEK = "report.html", "week.html"


def write_report(output: str, manifest: Manifest, *, held: bool = False) -> str:
    """Write report.html beside a run's manifest, in the place of an earlier one.

    Args:
        output: the output folder.
        manifest: of the run.
        held: whether it lies with the runs that were held back.

    Returns:
        The path of the report.

    Raises:
        ManifestError: a table of the run is damaged.
        OutputError, DiskFull: the report cannot be written.
    """
    return save(report_path(output, manifest, held=held), report_html(output, manifest, held=held))


def report_path(output: str, manifest: Manifest, *, held: bool = False) -> str:
    """The place of a run's report, beside its manifest."""
    return join(output, _folder(manifest, held=held), REPORT)


def report_html(output: str, manifest: Manifest, *, held: bool = False) -> str:
    """The report of a run as HTML.

    Raises:
        ManifestError: a table of the run is damaged.
    """
    run = Run(output, moved(manifest, _folder(manifest, held=held)))
    return night_page(Sources(run, last_night(output, manifest), held, _plan(output, manifest)))


def page_of_night(output: str, *, run_id: str = "", run_date: str = "") -> tuple[str, str]:
    """Where the page of a night lies, and its HTML, made from what is there now.

    Args:
        run_id: of this run, published or held.
        run_date: of this night: its newest run, or if it failed, why; by default the newest night.

    Raises:
        ManifestError: there is no such run or night, or a manifest or table of it is damaged.
        OutputError: the folder has the layout of an earlier version.
    """
    if not run_id:
        failed = read_plan(output, run_date) if run_date else last_failed(output)
        if failed and reranking_failed(failed):
            return failed_path(output, failed.run_date), failed_html(output, failed)
    manifest, held = _newest_of(output, run_date) if run_date else choose_run(output, run_id)
    return report_path(output, manifest, held=held), report_html(output, manifest, held=held)


def _newest_of(output: str, run_date: str) -> tuple[Manifest, bool]:
    found = [
        (read_manifest(output, date, run_id, held=held), held)
        for held, top in ((False, RUNS), (True, HELD))
        for date, run_id in run_ids(output, top=top)
        if date == run_date
    ]
    if not found:
        raise ManifestError(
            f"{output} has no run of {run_date}, and no record that this night failed; it was not started there, or "
            "was killed while it reranked: start it again, or see nightrank runs for those that are there"
        )
    return max(found, key=lambda one: (one[0].created_at, one[0].run_id))


def choose_run(output: str, run_id: str = "") -> tuple[Manifest, bool]:
    """A run, and whether it is held back: the one of that id, or the newest, which in the morning is last night's.

    Raises:
        ManifestError: there is no such run, or its manifest is damaged.
        OutputError: the folder has the layout of an earlier version.
    """
    if run_id:
        held = find_held(output, run_id)
        return (held, True) if held else (find_run(output, run_id), False)
    serving, waiting = latest(output), held_runs(output)
    newest = max(waiting, key=lambda run: (run.run_date, run.created_at), default=None)
    if newest and (
        serving is None or (newest.run_date, newest.created_at) > (serving.run_date, serving.created_at)
    ):
        return newest, True
    return open_run(output), False


def save(path: str, page: str) -> str:
    """Write a page whole, and return its path.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        write_bytes(path, page.encode())
    except OSError as error:
        raise output_error(
            error,
            f"cannot write {path}: {error.strerror or error}; see to the disk, or name another file by --to",
        ) from None
    return path


def last_night(output: str, manifest: Manifest) -> Run | None:
    """The published run that a run is compared with: drift's, the one it reused, or the last before it."""
    named = [(manifest.drift or {}).get("previous"), manifest.previous_run_id]
    earlier = [run_id for date, run_id in run_ids(output) if date < manifest.run_date]
    for run_id in [*filter(None, named), *reversed(earlier)]:
        with contextlib.suppress(ManifestError):
            return Run(output, find_run(output, run_id))
    return None


def _folder(manifest: Manifest, *, held: bool) -> str:
    path = held_path if held else run_path
    return path(manifest.run_date, manifest.run_id)


def _plan(output: str, manifest: Manifest) -> PlanRecord | None:
    """The steps of the night, if they were recorded for this run and not for another one of its date."""
    plan = read_plan(output, manifest.run_date)
    rerank = plan.step("rerank")
    ran = rerank.result.get("run_id") if rerank else None
    return without_report(plan) if plan.steps and ran in (None, manifest.run_id) else None


def write_week(output: str, path: str = "") -> str:
    """Write the page of the week that ends with the newest run: by default week.html in the output folder.

    Returns:
        The path of the page.

    Raises:
        ManifestError: there is no run.
        OutputError: the page cannot be written, or the folder has the layout of an earlier version.
    """
    return save(path or join(output, WEEK), week_page(output, links=not path))
