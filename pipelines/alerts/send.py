"""Reports the outcome of a night: to Prometheus, to a JSON file, to a webhook."""

from __future__ import annotations

import os
from collections.abc import Callable

from pipelines.alerts import prometheus, summary, webhook
from pipelines.alerts.night import Night, end_of_night
from pipelines.storage.filesystem import read_if_any, write_bytes
from rerank_core.config.operation import Alerts
from rerank_core.redact import redact
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord


def send(
    alerts: Alerts, record: PlanRecord, manifest: Manifest | None, problem: str = "", *, output: str = ""
) -> list[str]:
    """Report how a night ended. It never raises, and takes little more than alerts.webhook_timeout_seconds at most.

    Args:
        alerts: where to.
        record: the night's steps, as they ended.
        manifest: of tonight's run, published or held; None: there is none.
        problem: the first failure's message; "": nothing failed.
        output: the output folder; by default the manifest's.

    Returns:
        What could not be sent, one line each.
    """
    night = end_of_night(record, manifest, problem, output=output)
    ways: dict[str, Callable[[], str]] = {
        "alerts.prometheus": lambda: _write_metrics(alerts.prometheus, night),
        "alerts.summary": lambda: _write_summary(alerts.summary, night),
        "alerts.webhook_on": lambda: _post(alerts, night),
    }
    return [line for key, way in ways.items() if (line := _tried(key, way))]


def _tried(key: str, way: Callable[[], str]) -> str:
    """Why one way failed; "" if it did not. A night is not lost to its alerts, whatever goes wrong there."""
    try:
        problem = way()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}" if not str(error) else str(error)
    return f"{key}: {' '.join(redact(problem).split())}" if problem else ""


def _write_metrics(path: str, night: Night) -> str:
    if path:
        before = (read_if_any(path) or b"").decode("utf-8", "replace")
        write_bytes(path, prometheus.metrics(night, before=before))
    return ""


def _write_summary(path: str, night: Night) -> str:
    if path:
        write_bytes(path, summary.to_json(night).encode())
    return ""


def _post(alerts: Alerts, night: Night) -> str:
    if night.state not in alerts.webhook_on:
        return ""
    url = webhook.webhook_url(os.environ)
    return webhook.post(url, webhook.body(night), seconds=alerts.webhook_timeout_seconds) if url else ""
