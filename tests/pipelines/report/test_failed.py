"""The page of a night without a report: what it says, where it lies, and who finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.alerts.night import end_of_night
from pipelines.alerts.summary import summary
from pipelines.report import week
from pipelines.report.failed import failed_html, failed_path, update_failed_page
from pipelines.report.verdict import STEP_NAMES
from pipelines.report.write import page_of_night, write_report, write_week
from pipelines.storage.plan_records import plan_dates, read_plan, write_plan
from schemas.errors import ManifestError
from schemas.outcome import PlanRecord, StepRecord, StepState
from tests.conftest import Night
from tests.pipelines.report.conftest import held_night

DATE = "2026-03-09"  # of the night after the tiny one
WHY = "cannot read <b>log.jsonl</b>: no such file; mend it"


def step(name: str, state: StepState, reason: str = "", **result: Any) -> StepRecord:
    return StepRecord(name, state, reason, "k", "2026-03-09T03:00:00+00:00", 61.0, result)


def failed(date: str = DATE, **changes: StepRecord) -> PlanRecord:
    """A night whose reranking failed, but for other records of its steps."""
    steps = {name: step(name, "not_due", "rerank failed") for name in STEP_NAMES}
    return PlanRecord(date, tuple((steps | {"rerank": step("rerank", "failed", WHY)} | changes).values()))


def words(html: str) -> str:
    return " ".join(html.replace("<bdi>", "").replace("</bdi>", "").split())


def test_it_says_which_step_failed_and_what_readers_get(published: Night) -> None:
    page = words(failed_html(str(published.output), failed()))
    assert "Failed</strong> Reranking failed, so there is no run of this night." in page
    assert f"Readers get the lists of Sunday, 8 March 2026, run {published.manifest.run_id}." in page
    assert "Reranking failed.</span> cannot read &lt;b&gt;log.jsonl&lt;/b&gt;: no such file; mend it" in page
    assert f"nightrank nightly --config … --run-date {DATE}" in page
    assert "--from-step" not in page  # the night as a whole
    assert "rerank failed, 1 min 1 s" in page
    assert all(name in page for name in STEP_NAMES.values())
    assert "Not finished" not in page


def test_a_run_of_an_earlier_try_is_not_denied(night: Night, tmp_path: Path) -> None:
    """A night that was published or held, and was started again and failed."""
    output, held = held_night(night, tmp_path)
    for manifest in (night.manifest, held):
        page = words(failed_html(str(output), failed(manifest.run_date)))
        assert "failed when the night was started again; the run that it had before is unchanged." in page
        assert "no run of this night" not in page
        write_plan(str(output), failed(manifest.run_date))
    assert "✗" not in Path(write_week(str(output))).read_text()  # both nights have their runs


def test_a_week_reads_no_record_of_an_earlier_one(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _ = held_night(night, tmp_path)
    for date in ("2025-03-10", "2026-03-02", "2026-03-07", "2026-03-10"):
        write_plan(str(output), failed(date))
    read = list[str]()
    monkeypatch.setattr(week, "read_plan", lambda output, date: read.append(date) or read_plan(output, date))
    page = Path(write_week(str(output))).read_text()
    assert read == ["2026-03-07", "2026-03-10"]
    assert page.count("✗ failed") == 2


def test_before_anything_was_published_readers_get_nothing(tmp_path: Path) -> None:
    assert "so readers get no lists" in failed_html(str(tmp_path), failed())
    (tmp_path / "latest.json").write_text("{")
    assert "Which lists readers get is not known" in failed_html(str(tmp_path), failed())


@pytest.mark.parametrize(
    ("state", "told"), [("done", "Published, without a report"), ("held", "Held back, without a report")]
)
def test_a_report_that_failed_is_told_in_its_place(published: Night, state: StepState, told: str) -> None:
    record = failed(
        rerank=step("rerank", state, run_id="r"), report=step("report", "failed", "part-3 is damaged")
    )
    page = words(failed_html(str(published.output), record))
    assert told in page
    assert "part-3 is damaged" in page
    assert f"nightrank nightly --config … --run-date {DATE} --from-step report" in page


def test_it_goes_once_there_is_a_report(published: Night) -> None:
    output = str(published.output)
    path = Path(failed_path(output, DATE))
    update_failed_page(output, failed())
    assert path == published.output / "_plan" / f"run_date={DATE}.html"
    assert path.read_text() == failed_html(output, failed())
    mended = failed(rerank=step("rerank", "done", run_id="r"), report=step("report", "not_due"))
    update_failed_page(output, mended)  # a part of a night that says nothing of its report
    assert path.exists()
    update_failed_page(output, failed(rerank=step("rerank", "done"), report=step("report", "done")))
    assert not path.exists()


def test_nothing_is_written_through_a_link(published: Night, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (published.output / "_plan").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="leads out of"):
        update_failed_page(str(published.output), failed())


def test_the_newest_night_is_found_failed_or_not(night: Night, tmp_path: Path) -> None:
    """In the morning after a failed night its page is opened, not that of the night before."""
    output, held = held_night(night, tmp_path)  # of DATE
    reports = {
        "published": write_report(str(output), night.manifest),
        "held": write_report(str(output), held, held=True),
    }
    assert page_of_night(str(output))[0] == reports["held"]
    write_plan(str(output), failed("2026-03-10"))
    path, page = page_of_night(str(output))
    assert path == failed_path(str(output), "2026-03-10")
    assert page == failed_html(str(output), failed("2026-03-10"))
    assert page_of_night(str(output), run_date="2026-03-10") == (path, page)
    assert page_of_night(str(output), run_date=DATE)[0] == reports["held"]
    assert page_of_night(str(output), run_date="2026-03-08")[0] == reports["published"]
    assert page_of_night(str(output), run_id=night.manifest.run_id)[0] == reports["published"]
    write_plan(str(output), failed("2026-03-08"))  # an older one, again
    write_plan(str(output), failed("2026-03-10", rerank=step("rerank", "done")))
    assert page_of_night(str(output))[0] == reports["held"]
    assert page_of_night(str(output), run_date="2026-03-08")[0] == failed_path(str(output), "2026-03-08")
    with pytest.raises(ManifestError, match=r"no run of 2026-03-02, and no record that this night failed"):
        page_of_night(str(output), run_date="2026-03-02")


def test_a_week_has_a_row_and_a_link_for_it(night: Night, tmp_path: Path) -> None:
    output, _ = held_night(night, tmp_path)
    for date in ("2026-03-02", "2026-03-10"):  # the first one is before the week
        write_plan(str(output), failed(date))
        update_failed_page(str(output), failed(date))
    page = Path(write_week(str(output))).read_text()
    assert page.count("✗ failed") == 1
    assert '<a href="_plan/run_date=2026-03-10.html">2026-03-10<span class="hidden">, no run</span>' in page
    assert "1 nights were published, 1 held back, 1 failed." in page.replace("\n", "")
    assert "No run of <bdi>Tuesday, 10 March 2026 (cannot read &lt;b&gt;log.jsonl" in page
    assert "_plan/" not in Path(write_week(str(output), str(tmp_path / "elsewhere.html"))).read_text()


def test_a_week_of_failed_nights_alone(tmp_path: Path) -> None:
    for date in ("2026-03-09", "2026-03-10"):
        write_plan(str(tmp_path), failed(date))
    page = Path(write_week(str(tmp_path))).read_text()
    assert "✗ 2 failed" in page
    assert "Trends" not in page


def test_only_dates_are_dates_of_records(tmp_path: Path) -> None:
    write_plan(str(tmp_path), failed())
    for name in ("run_date=x.json", "run_date=20260310.json", "_run_date=2026-03-11.json.tmp-1", "x.json"):
        (tmp_path / "_plan" / name).write_text("{}")
    assert plan_dates(str(tmp_path)) == [DATE]


def test_alerts_name_it(published: Night) -> None:
    output = str(published.output)
    update_failed_page(output, failed())
    night = end_of_night(failed(), None, WHY, output=output)
    assert summary(night)["paths"] == {"report": failed_path(output, DATE)}
    Path(failed_path(output, DATE)).unlink()
    assert summary(night)["paths"] == {}


def test_a_report_tells_of_every_step_but_its_own(published: Night) -> None:
    """Also of those after which it was written once; not of an attempt at the report that failed before."""
    manifest, output = published.manifest, str(published.output)
    steps = {name: step(name, "done") for name in STEP_NAMES}
    steps["rerank"] = step("rerank", "done", run_id=manifest.run_id)
    steps["publish_back"] = step("publish_back", "failed", "no cluster")
    write_plan(output, PlanRecord(manifest.run_date, tuple(steps.values())))
    before = Path(write_report(output, manifest)).read_text()
    assert "publish_back failed, 1 min 1 s" in before
    assert "Publishing back to the search cluster failed.</span> no cluster" in words(before)
    steps["report"] = step("report", "failed", "no disk")
    write_plan(output, PlanRecord(manifest.run_date, tuple(steps.values())))
    assert Path(write_report(output, manifest)).read_text() == before
    del steps["clean_up"]
    write_plan(output, PlanRecord(manifest.run_date, tuple(steps.values())))
    killed = Path(write_report(output, manifest)).read_text()
    assert "Nothing is recorded of clean_up: the night is not over, was killed, or was to do a part" in killed
