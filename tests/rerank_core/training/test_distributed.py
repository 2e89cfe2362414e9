"""Two processes learn what one learns, from the same examples in the same steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from rerank_core.config.training import TrainingStage
from rerank_core.errors import TrainingError
from rerank_core.training.distributed import ALONE, Batches, Processes, join, split_batch
from rerank_core.training.metrics_log import MetricsLog
from tests.support.tiny_processes import even, together

ROOT = Path(__file__).parents[3]


def test_two_processes_that_are_killed_and_go_on_end_with_the_weights_of_one(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    alone = together(tmp_path / "one", even(tmp_path / "one"))
    (tmp_path / "two").mkdir()

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.tiny_processes", str(tmp_path / "two"), "2", "lists", "5"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    wanted, found = (
        load_file(place / "model.safetensors")
        for place in (alone, tmp_path / "two" / "work" / "2-lists" / "model")
    )
    # A list's loss does not see what is added to all its logits: this gradient is rounding, which Adam makes a step of.
    wanted.pop("classifier.bias")
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4, msg=name)
    one, two = (MetricsLog(tmp_path / name / "figures.jsonl").lines for name in ("one", "two"))
    assert [(line["kind"], line["stage"], line["step"]) for line in two] == [
        (line["kind"], line["stage"], line["step"]) for line in one
    ]
    for a, b in zip(one, two, strict=True):
        if a["kind"] == "loss" and (a["stage"], a["step"]) != (
            "pairs",
            16,
        ):  # not full: a mean of means of 3 and 1, or of 2 and 2
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 3), st.integers(2, 4))
def test_every_example_is_dealt_in_its_step(rows: int, batch: int, accumulation: int, count: int) -> None:
    batches = list(Batches(rows, batch=batch, accumulation=accumulation, count=count))
    assert len(batches) == len(Batches(rows, batch=batch, accumulation=accumulation, count=count))
    assert len(batches) % count == 0  # as many for each process
    step, size = accumulation * count, batch * accumulation * count
    for number, start in enumerate(range(0, rows, size)):
        dealt = batches[number * step : (number + 1) * step]
        wanted = range(start, min(start + size, rows))
        flat = [place for one in dealt for place in one]
        assert flat[: len(wanted)] == list(wanted)
        assert len(flat) == max(len(wanted), len(dealt))
        assert all(one and len(one) <= batch for one in dealt)
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@pytest.mark.parametrize(
    ("batch", "accumulation", "count", "wanted"),
    [(8, 1, 1, (8, 1)), (8, 1, 2, (4, 1)), (8, 4, 2, (8, 2)), (8, 2, 4, (4, 1)), (3, 2, 2, (3, 1))],
)
def test_a_batch_is_split(batch: int, accumulation: int, count: int, wanted: tuple[int, int]) -> None:
    stage = TrainingStage("one", ("night",), batch=batch, accumulation=accumulation)
    assert split_batch(stage, Processes(0, count)) == wanted


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(
        TrainingError, match="stage 'one': batch = 3 x accumulation = 1 cannot be split evenly between 2"
    ):
        split_batch(TrainingStage("one", ("night",), batch=3), Processes(0, 2))


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join() as found:
        assert found == ALONE
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="4 processes were started, 2 of them on this"), join():
        pass
