"""After every night its page tells of all of it: also of what follows publishing, and of a night without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.plan import run
from pipelines.plan.steps import NAMES, STEPS
from pipelines.report import write
from pipelines.report.failed import failed_path
from pipelines.report.verdict import STEP_NAMES
from pipelines.report.write import page_of_night, report_path
from pipelines.storage.runs import latest
from rerank_core.errors import NightError
from schemas.errors import ManifestError
from tests.conftest import MakeConfig
from tests.pipelines.plan.conftest import start, states
from tests.support.tiny import DAY

FAILING = ["publish_back", "clean_up"]


def fails(_: Any) -> Any:
    raise NightError("no <answer>; try later")


def fail_in(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The real steps, but for these, which are due and fail."""
    steps = [step._replace(why_not=lambda _: "", run=fails) if step.name in names else step for step in STEPS]
    monkeypatch.setattr(run, "STEPS", tuple(steps))


def test_pages_know_the_steps_in_their_order() -> None:
    assert tuple(STEP_NAMES) == NAMES


def test_the_page_of_a_plain_night_tells_of_every_step(make_config: MakeConfig) -> None:
    config = make_config()
    outcome = start(config)
    assert outcome.manifest
    page = Path(report_path(config.output.path, outcome.manifest)).read_text()
    assert "Not finished" not in page
    for step in outcome.record.steps[:-1]:
        assert f"{step.name} {step.state.replace('_', ' ')}" in page
        assert step.reason in page.replace("&#39;", "'")


@pytest.mark.parametrize("name", FAILING)
def test_what_fails_after_publishing_is_on_the_page_of_that_night(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = make_config()
    with monkeypatch.context() as patch:
        fail_in(patch, name)
        outcome = start(config)
    assert outcome.manifest
    path = Path(report_path(config.output.path, outcome.manifest))
    page = path.read_text().replace("<bdi>", "").replace("</bdi>", "")
    assert f"{STEP_NAMES[name]} failed.</span> no &lt;answer&gt;; try later" in page
    assert f"--run-date {DAY} --from-step {name}" in page
    fail_in(monkeypatch)  # mended, and run by itself
    start(config, only=name)
    assert "no &lt;answer&gt;" not in path.read_text()


def test_a_night_that_cannot_be_reranked_has_a_page_until_it_was(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    broken = make_config(source={"log": str(tmp_path / "nosuch.jsonl")})
    outcome = start(broken)
    path = Path(failed_path(broken.output.path, str(DAY)))
    page = path.read_text()
    assert outcome.record.steps[0].reason in page.replace("&#39;", "'")
    assert "Nothing was published yet" in page
    assert (str(path), page) == page_of_night(broken.output.path)
    mended = start(make_config())
    assert not mended.failures
    assert not path.exists()
    assert page_of_night(broken.output.path)[0].endswith("/report.html")


def test_a_report_that_fails_leaves_a_page(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()

    def damaged(*_: Any, **__: Any) -> Any:
        raise ManifestError("part-00001 is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(write, "report_html", damaged)
        outcome = start(config)
    path = Path(failed_path(config.output.path, str(DAY)))
    assert states(outcome)["report"] == "failed"
    assert latest(config.output.path) == outcome.manifest
    assert "Published, but the report could not be made." in path.read_text()
    assert "part-00001 is damaged" in path.read_text()
    start(config)
    assert not path.exists()


def test_a_part_of_a_night_makes_no_page_of_a_night(make_config: MakeConfig) -> None:
    config = make_config()
    start(config, only="clean_up")
    assert not Path(failed_path(config.output.path, str(DAY))).exists()


def test_a_page_that_cannot_be_written_is_a_failure(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = make_config(source={"log": str(tmp_path / "nosuch.jsonl")})
    Path(failed_path(config.output.path, str(DAY))).mkdir(parents=True)
    outcome = start(config)
    assert len(outcome.failures) == 2
    assert isinstance(outcome.failures[1], OSError)
