"""Nights of all steps that end early: at any change, on a full disk, by a signal; and two schedulers at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
import torch

from pipelines.plan.run import Outcome, run_plan
from pipelines.storage import runs
from pipelines.storage.lock_record import holder_of
from rerank_core.config.night import load_config
from rerank_core.errors import FAILED
from tests.support.killed import count_changes, full_disk, killed
from tests.support.tiny import DAY
from tests.support.tiny_plan import contents, make_plan

ROOT = Path(__file__).parents[2]
STEPS = ("rerank", "train", "evaluate", "promote", "clean_up", "report")
MOMENTS = 4  # of the sweeps over all changes that a night makes


class World:
    """A folder with everything for the night, which is put back to its beginning by `restore`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._beginning = folder / "night", folder / "beginning"
        self.folder.mkdir()
        make_plan(self.folder)
        self.before = contents(self.folder)
        shutil.copytree(self.folder, self._beginning)
        reranked = list[int]()  # changes by the time that a later step begins
        with killed(self.folder, at=-1):
            outcome = self.start(tell=lambda name: reranked.append(count_changes()))
        self.reranking, self.changes = reranked[0], count_changes()
        assert outcome.ran == STEPS
        assert not outcome.failures
        self.after = contents(self.folder)

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._beginning, self.folder)

    def start(self, *, tell: Callable[[str], None] = lambda name: None) -> Outcome:
        return run_plan(load_config(self.folder / "night.toml"), run_date=DAY, tell=tell)

    def check_readers(self) -> None:
        """What `latest.json` names is whole: the run before, or the night's."""
        manifest = runs.open_run(str(self.folder / "output"))
        runs.check_run(str(self.folder / "output"), manifest)
        assert manifest.run_id in (self.before["latest"], self.after["latest"])

    def check_made_up_for(self) -> None:
        """Started again, the night ends as if nothing had happened."""
        outcome = self.start()
        assert not outcome.failures
        assert contents(self.folder) == self.after
        assert [step.state for step in outcome.record.steps if step.name in STEPS] == ["done"] * len(STEPS)
        assert not (self.folder / "output" / "_staging").exists()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return World(tmp_path_factory.mktemp("plan"))


@pytest.fixture(autouse=True)
def _beginning(world: World) -> None:
    world.restore()


def test_the_night_has_every_step(world: World) -> None:
    assert world.after["latest"].startswith("20260308-")
    assert "promoted" in world.after["decisions"]
    assert world.after["serving"]
    assert any("run_date=2026-03-05" in path for path in world.before)
    assert not any("run_date=2026-03-05" in path for path in world.after)  # retention removed it


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_at_any_change(world: World, moment: int) -> None:
    with killed(world.folder, at=(2 * moment + 1) * world.changes // (2 * MOMENTS)):
        world.start()
    world.check_readers()
    world.check_made_up_for()


@pytest.mark.parametrize("step", [*STEPS, "in the middle of rerank"])
def test_a_disk_that_is_full_from_a_step_on(world: World, step: str) -> None:
    first = {"rerank": 0, "in the middle of rerank": world.reranking // 2}
    with full_disk(world.folder, at=first.get(step, sys.maxsize)) as fill:
        outcome = world.start(tell=lambda name: fill() if name == step else None)
    assert outcome.failures
    for failure in outcome.failures:
        assert getattr(failure, "exit_code", FAILED if isinstance(failure, OSError) else None) == FAILED
        assert "No space left" in str(failure)
    world.check_readers()
    world.check_made_up_for()


# --- real processes


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    command = ["nightly", "--config", "night.toml", "--run-date", str(DAY), *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> bool:
    """Read standard error until a line ends with this; False if the process ended before."""
    assert process.stderr
    return any(line.rstrip().endswith(text) for line in process.stderr)


def test_a_signal_in_each_step(world: World) -> None:
    """One night, ended as each further step begins, and started again."""
    for step in STEPS[1:]:
        night = start(world.folder)
        assert wait_for(night, f" {step} begins")
        night.send_signal(signal.SIGTERM)
        _, err = night.communicate(timeout=600)
        assert night.returncode in (128 + signal.SIGTERM, 0), err
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (night.returncode != 0), err
        assert "Traceback" not in err
        world.check_readers()
        if night.returncode == 0:  # it was the last of what was left, and quicker
            break
    world.check_made_up_for()


def test_two_schedulers_at_once(world: World) -> None:
    first = start(world.folder, "--quiet", "--only", "rerank")
    lock = world.folder / "output" / "_lock"
    while f"process {first.pid} " not in (holder_of(str(lock)) if lock.exists() else ""):
        assert first.poll() is None, first.communicate()
    first.send_signal(signal.SIGSTOP)  # so that it is not over before the second one looks
    try:
        second = start(world.folder, "--quiet")
        out, err = second.communicate(timeout=600)
        assert (second.returncode, out, len(err.splitlines())) == (4, "", 1), err
        assert f"process {first.pid} on " in err
    finally:
        first.send_signal(signal.SIGCONT)
    out, err = first.communicate(timeout=600)
    assert (first.returncode, out, err) == (0, "", "")
    world.check_made_up_for()
