"""Each file that a command reads, damaged in each way: one line on standard error, and a documented exit code."""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import METADATA
from rerank_core.ranking import calibration, fusion
from tests.support.tiny import DAY, GOOD_LOG, Tiny, make_config, make_tiny, write_beir, write_lines

pytest.importorskip("onnx")
pytest.importorskip("torch")
from tests.support.fakes import fake
from tests.support.tiny_models import write_cross_encoder
from tests.support.tiny_onnx import write_model

NIGHT = """
[source]
log = "{log}"
index = "index"
[scoring]
model = "model"
max_length = 64
[tags]
recogniser = "rules"
[fusion]
use = "on"
[labels]
source = "qrels"
queries = "queries.jsonl"
qrels = "qrels.tsv"
[evaluation]
queries = "queries.jsonl"
qrels = "qrels.tsv"
[output]
path = "output"
"""
TRAINING = """
model = "base"
output = "trained"
dev = "set"
[[stages]]
name = "a"
runs = ["output"]
"""
LOGS = ("log.jsonl", "log.jsonl.gz", "log.parquet")


def _break(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def missing(path: Path) -> None:
    _break(path)


def a_folder(path: Path) -> None:
    _break(path)
    path.mkdir()


def a_file(path: Path) -> None:
    _break(path)
    path.write_text("a file\n")


def empty(path: Path) -> None:
    _break(path)
    path.touch()


def garbage(path: Path) -> None:
    _break(path)
    path.write_bytes(bytes(range(256)) * 8)


def cut_off(path: Path) -> None:
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: max(1, len(whole) // 2)])


def zipped_and_cut_off(path: Path) -> None:
    data = path.read_bytes()
    _break(path)
    path.write_bytes(gzip.compress(data + os.urandom(64))[:-12])


def unreadable(path: Path) -> None:
    """As without permission, for the superuser too: the system refuses to open it."""
    _break(path)
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    _break(path)
    path.symlink_to("nowhere")


def nested(path: Path) -> None:
    _break(path)
    path.write_text("[" * 100_000)


def nested_in_toml(path: Path) -> None:
    _break(path)
    path.write_text("a = " + "[" * 100_000)


def long_number(path: Path) -> None:
    _break(path)
    path.write_text('{"a": ' + "9" * 5000 + "}")


def long_number_in_toml(path: Path) -> None:
    _break(path)
    path.write_text("[scoring]\nmax_length = 0x" + "F" * 5000)


ALL = (a_folder, empty, garbage, cut_off, unreadable)
OF_JSON, OF_TOML = (*ALL, nested, long_number), (*ALL, nested_in_toml, long_number_in_toml)
OF_OTHERS = (*ALL, missing, dangling, zipped_and_cut_off)
OF_FOLDERS = (missing, a_file, a_folder, unreadable)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the commands read, whole."""
    folder = tmp_path_factory.mktemp("world")
    tiny: Tiny = make_tiny(folder)
    write_lines(folder / "log.jsonl", GOOD_LOG)
    (folder / "log.jsonl.gz").write_bytes(gzip.compress((folder / "log.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(GOOD_LOG), folder / "log.parquet")
    model = folder / "model"
    write_model(model)
    calibration.write(model, calibration.UNCALIBRATED, figures={})
    bm25 = (1.0, *(0.0 for _ in fusion.FEATURES[1:]))
    fusion.write(model / "fusion.json", fusion.Fusion(bm25, 0.0, ""), figures={})
    write_lines(folder / "queries.jsonl", [{"_id": "1", "text": "Who wrote Dune"}])
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\tdune\t1\n")
    write_lines(folder / "pairs.jsonl", [{"query": "dune", "passage": "Dune is a novel."}])
    (folder / "set").mkdir()
    write_beir(folder / "set", {"1": "Who wrote Dune"}, "query-id\tcorpus-id\tscore\n1\tdune\t1\n")
    for log in LOGS:
        (folder / f"night-{log}.toml").write_text(NIGHT.format(log=log))
    (folder / "train.toml").write_text(TRAINING)
    write_cross_encoder(folder / "base")
    config = make_config(tiny, folder / "output", labels={"source": "clicks"})
    run(config, run_date=DAY, load=fake())
    return folder


NIGHTLY = "nightly --config night-{log}.toml --run-date 2026-03-08"
OUTPUT = ("output", "output/latest.json", "output/runs/*/*/manifest.json", "output/runs/*/*/reranked/*0-of*")
MODEL = (
    "model",
    "model/config.json",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "model/**/*.onnx",
    "model/calibration.json",
    "model/fusion.json",
)
INDEX = (
    "index",
    f"index/{METADATA}",
    "index/tantivy",
    "index/tantivy/meta.json",
    "index/tantivy/*.store",
    "index/tantivy/*.term",
)
SET = ("set", "set/corpus.jsonl", "set/queries.jsonl", "set/qrels/dev.tsv")
SWEEPS: dict[str, tuple[str, ...]] = {
    "index corpus.jsonl --to new": ("corpus.jsonl", "new"),
    "index set --to index": ("set", "set/corpus.jsonl", "index", f"index/{METADATA}"),
    **{NIGHTLY.format(log=log): (log,) for log in LOGS[1:]},
    NIGHTLY.format(log=LOGS[0]): (
        f"night-{LOGS[0]}.toml",
        LOGS[0],
        *INDEX,
        *MODEL,
        "queries.jsonl",
        "qrels.tsv",
        *OUTPUT,
        "output/runs/*/*/passage_tags/*0-of*",
        "output/_lock",
        "output/_staging",
    ),
    "show 'Who wrote Dune' --run output": OUTPUT,
    "autotune model --pairs pairs.jsonl": ("pairs.jsonl", "model"),
    f"autotune --config night-{LOGS[0]}.toml --run-date 2026-03-08": (LOGS[0], "index"),
    "evaluate set --system bm25 --system m=model": (*SET, "model"),
    "evaluate --night output --queries queries.jsonl --qrels qrels.tsv": ("qrels.tsv", OUTPUT[-1]),
    "calibrate model set --dry-run": SET[2:],
    "fuse model set --dry-run": SET[2:],
    "train --config train.toml": ("train.toml", "base", "base/config.json", "trained", "set", *OUTPUT),
}
CASES = [(command, target) for command, targets in SWEEPS.items() for target in targets]


@pytest.mark.parametrize(("command", "target"), CASES)
def test_a_damaged_file_is_one_line(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, target: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    problems = []
    whole = next(iter(sorted(world.glob(target))), world / target)
    assert "*" not in str(whole), f"nothing matches {target}"
    kinds = {".json": OF_JSON, ".toml": OF_TOML}.get(whole.suffix, OF_OTHERS)
    for number, damage in enumerate(kinds if whole.is_file() else OF_FOLDERS):
        folder = tmp_path / str(number)
        shutil.copytree(world, folder, copy_function=os.link)  # what is damaged is made anew
        damage(folder / whole.relative_to(world))
        monkeypatch.chdir(folder)
        problems += _problems(command, f"{command}, {target} {damage.__name__}")
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
    assert not problems, "\n".join(problems)


def test_whole_files_are_no_error(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shutil.copytree(world, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    for command in SWEEPS:
        if not command.startswith(("train", "calibrate", "fuse")):  # minutes; more judgements than there are
            done = _call(command)
            assert done.exit_code == 0, f"{command}: {done.output} {done.exception!r}"


def _call(command: str) -> Result:
    arguments = [*shlex.split(command), *([] if command.startswith("show") else ["--quiet"])]
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments)


def _problems(command: str, name: str) -> list[str]:
    done = _call(command)
    if done.exit_code == 0:
        return [f"{name}: prints {done.stderr!r}"] if done.stderr else []
    if done.exit_code not in (2, 3, 4, 5):
        return [f"{name}: {done.exit_code} {done.exception!r}"]
    lines = done.stderr.splitlines()
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return [f"{name}: {done.exit_code} {done.stderr!r}"]
    return []
