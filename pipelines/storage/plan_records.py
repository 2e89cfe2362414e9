"""The record of a night's steps: `_plan/run_date=D.json` in the output folder, written whole after each step.

It is what a night that is started again goes on from, and what reports and alerts read. It is not trusted: a file that
is damaged, or of another date, counts as none, and the steps are run again. Beside it lies the page of a night that has
no report (pipelines.report.failed).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging

from pydantic import TypeAdapter, ValidationError

from pipelines.storage.filesystem import files, is_temporary, join, read_if_any, remove, write_bytes
from pipelines.storage.runs import check_inside
from schemas.errors import ManifestError
from schemas.outcome import PlanRecord

PLANS = "_plan"
_READER = TypeAdapter(PlanRecord)
logger = logging.getLogger(__name__)


def plan_path(run_date: str) -> str:
    """Path of the record of a run date, relative to the output folder."""
    return f"{PLANS}/run_date={run_date}.json"


def page_path(run_date: str) -> str:
    """Path of the page of a night without a report, relative to the output folder."""
    return f"{PLANS}/run_date={run_date}.html"


def plan_dates(output: str) -> list[str]:
    """The run dates that have a record, the oldest first."""
    names = [path.rpartition("/")[2] for path in files(join(output, PLANS), "run_date=*.json")]
    dates = [name.removeprefix("run_date=").removesuffix(".json") for name in names]
    return sorted(filter(_is_date, dates))


def _is_date(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return datetime.date.fromisoformat(text).isoformat() == text
    return False


def read_plan(output: str, run_date: str) -> PlanRecord:
    """The steps of a run date as they ended last; without steps if there is no record, or none that can be used."""
    path = join(output, plan_path(run_date))
    try:
        check_inside(output, plan_path(run_date))
        if (data := read_if_any(path)) is None:
            return PlanRecord(run_date)
        record = _READER.validate_json(data, strict=True)
        if record.run_date != run_date:
            raise ValueError(f"it is of {record.run_date!r:.40}")
    except (OSError, ValueError, ManifestError) as error:
        problem = "it is no record of steps" if isinstance(error, ValidationError) else str(error)
        logger.info("%s is not used (%s): its steps are run again", path, problem)
        return PlanRecord(run_date)
    return record


def write_plan(output: str, record: PlanRecord) -> None:
    """Replace the record of a run date, under the lock of the output folder.

    Raises:
        OSError: it cannot be written.
        ManifestError: its place leads out of the output folder.
    """
    check_inside(output, plan_path(record.run_date))
    for path in filter(is_temporary, files(join(output, PLANS), "_*")):  # of a process that was killed
        remove(path)
    text = json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(join(output, plan_path(record.run_date)), text.encode(), durable=True)
