"""Nights that are killed, for real: the last run stays in service, and the next start makes up for everything."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.nightly.run import run
from pipelines.storage import runs
from rerank_core import errors
from tests.conftest import Night
from tests.support.fakes import fake
from tests.support.tiny import DAY, Tiny, make_config, published_bytes

ROOT = Path(__file__).parents[2]

# A night of its own process. `change`: the one to the folders of published runs and of tables at which the process ends
# without a word; -1: none.
DRIVER = """
import os, sys
from pathlib import Path
from pipelines.nightly.run import run
from tests.support.fakes import fake
from tests.support.tiny import DAY, Tiny, make_config

folder, output, seconds, change = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
tiny = Tiny(folder, folder / "index", folder / "log.jsonl", folder / "good.jsonl")

def dying(event, arguments):
    global change
    if event == "os.rename" and "_staging" not in str(arguments[1]):
        if change == 0:
            os._exit(9)
        change -= 1

sys.addaudithook(dying)
config = make_config(tiny, output, candidates={"top_k": 5})
manifest = run(config, run_date=DAY, load=fake("next", seconds=seconds))
print(manifest.run_id)
"""


def start(tiny: Tiny, output: Path, *, seconds: float = 0.0, change: int = -1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tiny.folder), str(output), str(seconds), str(change)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def uninterrupted(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the night of DRIVER publishes when nothing happens to it."""
    output = tmp_path_factory.mktemp("uninterrupted")
    config = make_config(tiny, output, candidates={"top_k": 5})
    return published_bytes(output, run(config, run_date=DAY, load=fake("next")))


def wait_for(path: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if list(path.glob(pattern)):
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {path} after 30 s")


def assert_made_up_for(tiny: Tiny, output: Path, served: str, uninterrupted: dict[str, bytes]) -> None:
    """`served` is still served whole; the night, started again, publishes what it would have published."""
    before = runs.latest(str(output))
    assert before is not None
    assert before.run_id == served
    runs.check_run(str(output), before)
    again = run(make_config(tiny, output, candidates={"top_k": 5}), run_date=DAY, load=fake("next"))
    assert published_bytes(output, again) == uninterrupted
    assert runs.latest(str(output)) == again
    assert pq.read_table(output / "reranked").num_rows == again.tables["reranked"].rows
    assert not (output / "_staging").exists()


def test_killed_while_it_scores(
    night: Night, tiny: Tiny, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    slow = start(tiny, output, seconds=60)
    try:
        wait_for(output, "_staging/*/_progress/*.json", slow)  # it scores
        # Meanwhile nobody else may write here: the second fails at once, and the first goes on.
        with pytest.raises(errors.Locked, match=f"process {slow.pid}.* is writing to {output}"):
            run(make_config(tiny, output), run_date=DAY, load=fake())
        assert slow.poll() is None
    finally:
        slow.send_signal(signal.SIGKILL)
        slow.communicate()
    assert slow.returncode == -signal.SIGKILL
    assert_made_up_for(tiny, output, night.manifest.run_id, uninterrupted)


@pytest.mark.parametrize("change", range(7))
def test_killed_while_it_publishes(
    night: Night, tiny: Tiny, tmp_path: Path, uninterrupted: dict[str, bytes], change: int
) -> None:
    # test_publish.py ends publishing at every change it makes; these are the renames in a real process.
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    dying = start(tiny, output, change=change)
    _, stderr = dying.communicate(timeout=600)
    assert dying.returncode == 9, stderr
    listed = set(pq.read_table(output / "reranked")["run_id"].to_pylist())
    assert (listed == {night.manifest.run_id}) == (
        change < 2
    )  # the run, its five tables, and last the pointer
    assert len(listed) == 1
    assert_made_up_for(tiny, output, night.manifest.run_id, uninterrupted)
