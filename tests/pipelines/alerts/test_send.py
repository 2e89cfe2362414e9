"""All ways of reporting a night together: what is written, what could not be, and that nothing is raised."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.alerts.night import STATES
from pipelines.alerts.send import send
from pipelines.alerts.webhook import VARIABLE
from rerank_core.config.operation import Alerts
from schemas.manifest import Manifest, to_json
from tests.pipelines.alerts.conftest import ENDS, record
from tests.support.object_store import MemoryFileSystem
from tests.support.receiver import Answer, receiver


def end(alerts: Alerts, manifest: Manifest, state: str) -> list[str]:
    drift, rerank, problem = ENDS[state]
    run = None if state == "failed" else dataclasses.replace(manifest, drift=drift)
    return send(alerts, record(rerank, problem), run, problem, output=manifest.config["output"]["path"])


def everywhere(folder: Path, **options: Any) -> Alerts:
    return Alerts(prometheus=str(folder / "nightrank.prom"), summary=str(folder / "night.json"), **options)


@pytest.mark.parametrize("state", STATES)
def test_every_way_reports_the_same_night(
    manifest: Manifest, tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as hook:
        monkeypatch.setenv(VARIABLE, hook.url())
        assert end(everywhere(tmp_path), manifest, state) == []
    assert json.loads((tmp_path / "night.json").read_text())["state"] == state
    assert f'nightrank_night_state{{state="{state}"}} 1.0' in (tmp_path / "nightrank.prom").read_text()
    assert len(hook.received) == (0 if state == "published" else 1)  # by default only what needs a person
    assert sorted(path.name for path in tmp_path.iterdir()) == ["night.json", "nightrank.prom", "output"]


def test_nothing_configured_sends_nothing(manifest: Manifest, tmp_path: Path) -> None:
    assert end(Alerts(), manifest, "held") == []
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_what_cannot_be_sent_is_told_and_the_rest_is_sent(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    alerts = Alerts(
        prometheus=str(tmp_path / "file" / "x.prom"),
        summary=str(tmp_path / "night.json"),
        webhook_timeout_seconds=1,
    )
    with receiver(Answer(404)) as hook:
        monkeypatch.setenv(VARIABLE, hook.url())
        unsent = end(alerts, manifest, "held")
    assert [line.partition(": ")[0] for line in unsent] == ["alerts.prometheus", "alerts.webhook_on"]
    assert all("\n" not in line for line in unsent)
    written = [(tmp_path / "night.json").read_text(), to_json(manifest), caplog.text, *unsent]
    assert not [text for text in written if "s3cr3t-token" in text]


def test_a_url_that_cannot_be_used_is_told_and_not_raised(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "s3cr3t-token-without-a-scheme")
    (line,) = end(everywhere(tmp_path), manifest, "failed")
    assert VARIABLE in line
    assert "s3cr3t" not in line


def test_files_are_replaced_whole_also_in_an_object_store(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "objects", {})
    remote = Alerts(prometheus="mem://bucket/nightrank.prom", summary="mem://bucket/night.json")
    for alerts in (remote, everywhere(tmp_path)):
        for state in ("published", "failed"):
            assert end(alerts, manifest, state) == []
    objects = MemoryFileSystem.objects
    assert set(objects) == {"mem://bucket/nightrank.prom", "mem://bucket/night.json"}
    for page in (objects["mem://bucket/nightrank.prom"], (tmp_path / "nightrank.prom").read_bytes()):
        assert b"nightrank_last_success_timestamp_seconds " in page
        assert b'state="failed"} 1.0' in page
    assert os.stat(tmp_path / "nightrank.prom").st_mode & 0o044 == 0o044  # node_exporter is another user
