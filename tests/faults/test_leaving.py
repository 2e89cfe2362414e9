"""Commands that end early, for real: a full disk, signals, a reader that goes away, a library that panics."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pipelines.sources.local.bm25_index import LocalIndex
from pipelines.storage import runs
from rerank_core.errors import SourceError
from tests.support.tiny import Tiny, write_lines

ROOT = Path(__file__).parents[2]
NIGHT = (
    '[source]\nlog = "good.jsonl"\nindex = "index"\n[tags]\nrecogniser = "rules"\n[output]\npath = "output"\n'
)
NIGHTLY = ("nightly", "--config", "night.toml", "--run-date", "2026-03-08")
WORKERS = ("--", "--direct_num_workers=2", "--direct_running_mode=multi_processing")


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """Everything for a night with the shipped model, in a folder of its own."""
    shutil.copytree(tiny.folder, tmp_path / "night")
    (tmp_path / "night" / "night.toml").write_text(NIGHT)
    return tmp_path / "night"


def start(
    folder: Path,
    *arguments: str,
    preexec: Callable[[], None] | None = None,
    stdout: int = subprocess.PIPE,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (variables or {}),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec,
        start_new_session=True,
    )


def call(folder: Path, *arguments: str, **options: object) -> tuple[int, str, str]:
    process = start(folder, *arguments, **options)  # type: ignore[arg-type]
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def files_of_at_most(size: int) -> Callable[[], None]:
    """The system refuses larger files, as a full disk or a quota does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def one_line(err: str) -> bool:
    return err.startswith("error: ") and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ((*NIGHTLY, "-q"), 60),  # not even progress can be written, which alone would end nothing
        ((*NIGHTLY, "-q"), 12_000),
        ((*NIGHTLY, "-q", *WORKERS), 12_000),
        (("index", "corpus.jsonl", "--to", "new", "-q"), 500),
        (("autotune", "--config", "night.toml", "--run-date", "2026-03-08", "-q"), 10),
    ],
)
def test_a_full_disk_is_one_line_and_keeps_nothing(
    folder: Path, arguments: tuple[str, ...], size: int
) -> None:
    code, out, err = call(folder, *arguments, preexec=files_of_at_most(size))
    assert (code, out) == (5, ""), err
    assert one_line(err), err
    assert "free some space" in err
    assert runs.latest(str(folder / "output")) is None
    # The record of the failed step and its page may be there, if the disk takes that much.
    left = {path.name for path in folder.glob("output/**/*") if path.is_file()}
    assert left <= {"_lock", "run_date=2026-03-08.json", "run_date=2026-03-08.html"}
    assert not list(folder.glob(".new*"))


@pytest.mark.parametrize(
    "arguments", [("show", "dune novel", "--run", "output"), (*NIGHTLY, "--json"), NIGHTLY]
)
def test_a_reader_that_goes_away_changes_nothing(folder: Path, arguments: tuple[str, ...]) -> None:
    if arguments[0] == "show":
        write_lines(folder / "good.jsonl", [{"timestamp": "2026-03-08T00:00:00Z", "query": "dune novel"}])
        assert call(folder, *NIGHTLY, "-q") == (0, "", "")
    read, write = os.pipe()
    os.close(read)
    code, _, err = call(folder, *arguments, stdout=write)
    os.close(write)
    logged = [line.partition(" INFO ")[2] for line in err.splitlines()]
    logged = [
        line for line in logged if not line.startswith("reranking: ")
    ]  # now and then, on a busy machine
    assert (code, logged) == (0, ["report begins"] if arguments == NIGHTLY else [])
    assert runs.latest(str(folder / "output")) is not None


def test_output_that_cannot_be_written_is_an_error(folder: Path) -> None:
    with (folder / "printed").open("w") as file:
        file.write("x" * 10_000)
        file.flush()
        code, _, err = call(
            folder, *NIGHTLY, "--help", stdout=file.fileno(), preexec=files_of_at_most(10_000)
        )
    assert (code, one_line(err)) == (5, True), err
    assert "cannot write standard output" in err


def test_a_terminal_of_another_encoding_is_no_error(folder: Path) -> None:
    write_lines(folder / "good.jsonl", [{"timestamp": "2026-03-08T00:00:00Z", "query": "dune 小説 ▲"}])
    latin = {"PYTHONIOENCODING": "latin-1"}
    code, out, err = call(folder, *NIGHTLY, variables=latin)
    assert (code, "Published" in out) == (0, True), err
    code, out, err = call(folder, "show", "dune 小説 ▲", "--run", "output", variables=latin)
    assert (code, err) == (0, "")
    assert "dune \\u5c0f\\u8aac \\u25b2" in out


def test_quiet_is_quiet_with_worker_processes(folder: Path) -> None:
    assert call(folder, *NIGHTLY, "-q", *WORKERS) == (0, "", "")


def wait_for_handlers(process: subprocess.Popen[str]) -> None:
    """Wait until our own handlers are set, the one of SIGTERM last: before, the process is Python's alone."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(status.partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_night_at_any_moment(folder: Path, number: signal.Signals) -> None:
    """Moments drawn anew each time: imports, start, scoring, the end. None may hang or print a traceback."""
    begun = time.monotonic()
    assert call(folder, *NIGHTLY, "-q")[0] == 0
    whole = time.monotonic() - begun
    shutil.rmtree(folder / "output")
    for _ in range(2):
        night = start(folder, *NIGHTLY, "-q")
        wait_for_handlers(night)
        time.sleep(random.uniform(0, 0.9) * whole)
        os.killpg(night.pid, number)  # as a terminal does: workers get it too
        try:
            _, err = night.communicate(timeout=600)
        finally:
            night.kill()
        assert night.returncode in (128 + number, 0), err
        assert night.returncode == 0 or one_line(err), err
    assert call(folder, *NIGHTLY, "-q") == (0, "", "")  # nothing is locked


def test_a_damaged_index_is_named_whatever_its_library_does(tiny: Tiny, tmp_path: Path) -> None:
    """tantivy panics over some damage, which pyo3 raises as a BaseException."""
    draw, told = random.Random(3), 0
    files = sorted(path.name for path in (tiny.index / "tantivy").iterdir() if path.stat().st_size)
    for _ in range(60):
        shutil.copytree(tiny.index, tmp_path / "index")
        victim = tmp_path / "index" / "tantivy" / draw.choice(files)
        damaged = bytearray(victim.read_bytes())
        for _ in range(draw.choice((1, 5, 50))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        victim.write_bytes(damaged)
        try:
            LocalIndex(tmp_path / "index").search(["dune novel", "rain falls", "washington"], top_k=10)
        except SourceError as error:
            told += "is damaged" in str(error) or "rebuild" in str(error)
        shutil.rmtree(tmp_path / "index")
    assert told > 10


def test_a_panic_during_a_night_is_one_line(folder: Path) -> None:
    terms = next((folder / "index" / "tantivy").glob("*.term"))
    damaged = bytearray(terms.read_bytes())
    damaged[20 : len(damaged) // 2] = os.urandom(len(damaged) // 2 - 20)
    terms.write_bytes(damaged)
    code, out, err = call(folder, *NIGHTLY, "-q")
    assert (code, out, one_line(err)) == (5, "", True), err  # each query is a dead letter
    assert "none of 5 queries could be reranked" in err


def test_nothing_of_a_defect_is_lost(folder: Path) -> None:
    """What native code printed is shown with the traceback."""
    code = (
        "import os; from pipelines.cli import leaving\n"
        "leaving.prepare()\n"
        "with leaving.at_the_end():\n"
        "    os.write(2, b'native words\\n')\n"
        "    raise KeyError('a defect')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "native words" in done.stderr
    assert "KeyError: 'a defect'" in done.stderr
