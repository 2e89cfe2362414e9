"""Records of a night's steps: read back as written, and never trusted."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.storage.filesystem import files, read_bytes, write_bytes
from pipelines.storage.plan_records import plan_path, read_plan, write_plan
from schemas.errors import ManifestError
from schemas.outcome import PlanRecord, StepRecord
from tests.support.object_store import MemoryFileSystem

DATE = "2026-03-08"
STEP = StepRecord(
    "rerank", "done", "", "20260308-abc", "2026-03-09T02:00:00+00:00", 1.5, {"run_id": "20260308-abc"}
)
STEPS = st.builds(
    StepRecord,
    name=st.text(max_size=5),
    state=st.sampled_from(["done", "not_due", "held", "failed"]),
    reason=st.text(max_size=20),
    key=st.text(max_size=5),
    finished_at=st.text(max_size=5),
    seconds=st.floats(0, 1e9),
    result=st.dictionaries(st.text(max_size=5), st.none() | st.integers(-9, 9) | st.text(max_size=5)),
)


@pytest.fixture(params=["local", "object store"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    MemoryFileSystem.objects.clear()
    yield str(tmp_path) if request.param == "local" else "mem://bucket/output"
    MemoryFileSystem.objects.clear()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(steps=st.lists(STEPS, max_size=4))
def test_a_record_is_read_back(output: str, steps: list[StepRecord]) -> None:
    record = PlanRecord(DATE, tuple(steps))
    write_plan(output, record)
    assert read_plan(output, DATE) == record
    assert read_plan(output, "2026-03-09") == PlanRecord("2026-03-09")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\xff" + data,
        lambda data: b"[" * 100_000,
        lambda data: data.replace(b'"done"', b'"finished"'),
        lambda data: data.replace(b"1.5", b'"1.5"'),
        lambda data: data.replace(b'"seconds"', b'"minutes"'),
        lambda data: data.replace(DATE.encode(), b"2026-03-07"),
        lambda data: b"[]",
    ],
)
def test_a_damaged_or_foreign_record_counts_as_none(output: str, damage: object) -> None:
    write_plan(output, PlanRecord(DATE, (STEP,)))
    path = f"{output}/{plan_path(DATE)}"
    write_bytes(path, damage(read_bytes(path)))  # type: ignore[operator]
    assert read_plan(output, DATE) == PlanRecord(DATE)
    write_plan(output, PlanRecord(DATE, (STEP,)))
    assert read_plan(output, DATE).steps == (STEP,)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    write_plan(str(tmp_path), PlanRecord(DATE, (STEP,)))
    (tmp_path / "_plan" / f"_run_date={DATE}.json.tmp-0").write_text("half")
    write_plan(str(tmp_path), PlanRecord(DATE))
    assert files(str(tmp_path / "_plan")) == [str(tmp_path / "_plan" / f"run_date={DATE}.json")]


@pytest.mark.parametrize("place", ["_plan", f"_plan/run_date={DATE}.json"])
def test_a_record_is_neither_read_nor_written_through_a_link(tmp_path: Path, place: str) -> None:
    elsewhere, output = tmp_path / "elsewhere", tmp_path / "output"
    write_plan(str(elsewhere), PlanRecord(DATE, (STEP,)))
    before = (elsewhere / plan_path(DATE)).read_bytes()
    (output / place).parent.mkdir(parents=True)
    (output / place).symlink_to(elsewhere / place)
    assert read_plan(str(output), DATE) == PlanRecord(DATE)
    with pytest.raises(ManifestError, match="leads out of"):
        write_plan(str(output), PlanRecord(DATE))
    assert (elsewhere / plan_path(DATE)).read_bytes() == before


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "_plan").mkdir()
    os.mkfifo(tmp_path / plan_path(DATE))
    assert read_plan(str(tmp_path), DATE) == PlanRecord(DATE)


def test_a_record_is_found_by_the_name_of_its_step() -> None:
    record = PlanRecord(DATE, (STEP, dataclasses.replace(STEP, name="train")))
    assert record.step("train") == record.steps[1]
    assert record.step("report") is None
