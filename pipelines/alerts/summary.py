"""A night's outcome as one JSON object, for whatever reads files in the morning."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from pipelines.alerts.night import Night, happened, readers, remedy, title
from pipelines.storage.filesystem import exists, join
from pipelines.storage.plan_records import page_path
from pipelines.storage.runs import MANIFEST

FORMAT = 1
REPORT = "report.html"


def summary(night: Night) -> dict[str, Any]:
    """What the file of alerts.summary holds; counts and reasons, but no text of a query or a document."""
    run, serving, drift = night.run, night.serving, (night.run.drift if night.run else None) or {}
    return {
        "format": FORMAT,
        "state": night.state,
        "title": title(night),
        "happened": happened(night),
        "readers": readers(night),
        "remedy": remedy(night),
        "run_date": night.record.run_date,
        "ended_at": night.ended.isoformat(timespec="seconds"),
        "run": run and {"run_id": run.run_id, "created_at": run.created_at, "seconds": run.seconds},
        "serving": serving and {"run_id": serving.run_id, "run_date": serving.run_date},
        "problem": night.problem,
        "reasons": list(drift.get("reasons", ())),
        "counts": dataclasses.asdict(run.balance) if run else {},
        "stale": (run.stale if run else None) or {},
        "dead_letters": run.rejected if run else {},
        "metrics": run.metrics if run else {},
        "measures": drift.get("measures", {}),
        "steps": [
            {"name": step.name, "state": step.state, "reason": step.reason, "seconds": step.seconds}
            for step in night.record.steps
        ],
        "paths": _paths(night),
    }


def _paths(night: Night) -> dict[str, str]:
    page = join(night.output, page_path(night.record.run_date)) if night.output else ""
    failed = {"report": page} if page and exists(page) else {}
    if not (night.output and night.folder):
        return failed
    folder, report = join(night.output, night.folder), night.record.step("report")
    paths = {"run": folder, "manifest": join(folder, MANIFEST)}
    return paths | ({"report": join(folder, REPORT)} if report and report.state == "done" else failed)


def to_json(night: Night) -> str:
    """The file's text."""
    return json.dumps(summary(night), indent=2, ensure_ascii=False) + "\n"
