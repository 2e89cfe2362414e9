"""The page of a night that has no report: its reranking failed, so that there is no run, or the report itself failed.

It lies beside the record of the night's steps, `_plan/run_date=D.html`, and is removed once the night has a report.
"""

from __future__ import annotations

from pipelines.report.page import render
from pipelines.report.text import day, message
from pipelines.report.verdict import step_rows, step_tasks
from pipelines.storage.filesystem import exists, join, remove, write_bytes
from pipelines.storage.plan_records import page_path, plan_dates, read_plan
from pipelines.storage.runs import HELD, RUNS, check_inside, latest, run_ids
from schemas.errors import NightrankError
from schemas.outcome import PlanRecord


def reranking_failed(record: PlanRecord) -> bool:
    """Whether a night's reranking failed when it was tried last; it may have a run of an earlier try."""
    rerank = record.step("rerank")
    return rerank is not None and rerank.state == "failed"


def failed_path(output: str, run_date: str) -> str:
    """The place of the page of a night without a report."""
    return join(output, page_path(run_date))


def failed_html(output: str, record: PlanRecord) -> str:
    """The page of a night without a report: which step failed, why, what readers get, and what to do."""
    rerank = record.step("rerank")
    state, happened = "Failed", "Reranking failed, so there is no run of this night."
    if reranking_failed(record):
        if record.run_date in {date for top in (RUNS, HELD) for date, _ in run_ids(output, top=top)}:
            happened = (
                "Reranking failed when the night was started again; the run that it had before is unchanged."
            )
    else:
        held = rerank is not None and rerank.state == "held"
        state = "Held back" if held else "Published"
        happened = f"{state}, but the report could not be made."
        state = f"{state}, without a report"
    night = {
        "run_date": record.run_date,
        "day": day(record.run_date),
        "state": state,
        "sentence": f"{happened} {_readers(output)}",
        "tasks": list(step_tasks(record)),
        "steps": step_rows(record),
    }
    return render("failed.html", night=night)


def update_failed_page(output: str, record: PlanRecord) -> None:
    """Write the page of a night that has no report, or remove the one of an earlier attempt.

    Raises:
        OSError: it cannot be written.
        ManifestError: its place leads out of the output folder.
    """
    report, path = record.step("report"), failed_path(output, record.run_date)
    check_inside(output, page_path(record.run_date))
    if reranking_failed(record) or (report and report.state == "failed"):
        write_bytes(path, failed_html(output, record).encode())
    elif report and report.state == "done" and exists(path):
        remove(path)


def last_failed(output: str) -> PlanRecord | None:
    """The newest night, if its reranking failed when it was tried last."""
    dates = plan_dates(output)
    record = read_plan(output, dates[-1]) if dates else None
    runs = run_ids(output) + run_ids(output, top=HELD)
    newest = max((date for date, _ in runs), default="")
    return record if record and reranking_failed(record) and record.run_date >= newest else None


def _readers(output: str) -> str:
    try:
        serving = latest(output)
    except NightrankError as error:
        return f"Which lists readers get is not known: {message(str(error))}"
    if serving is None:
        return "Nothing was published yet, so readers get no lists."
    return f"Readers get the lists of {day(serving.run_date)}, run {serving.run_id}."
