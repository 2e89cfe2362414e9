"""Where a command takes a path of this machine alone, an address of an object store is refused with the remedy."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from typer.models import OptionInfo
from typer.testing import CliRunner

from pipelines.cli.app import COMMANDS as COMMAND_FUNCTIONS
from pipelines.cli.app import app
from tests.support.tiny import write_beir

COMMANDS = {command.__name__.strip("_"): command for command in COMMAND_FUNCTIONS}
LOCAL = [
    (name, parameter)
    for name, command in COMMANDS.items()
    for parameter, hint in get_type_hints(command).items()
    if Path in (hint, *get_args(hint))
]
WRITTEN = {
    ("index", "to"),
    ("nightly", "profile"),
    ("evaluate", "work"),
    ("calibrate", "work"),
    ("calibrate", "plot"),
    ("fuse", "work"),
}
MODELS = [  # with the exit code: 2 of what names a system, 3 of a model that is loaded
    (("evaluate", "SET", "--system", "s3://bucket/model"), 2),
    (("evaluate", "SET", "--system", "mine=bi:s3://bucket/model"), 2),
    (("evaluate", "SET", "--system", "bm25", "--bi-encoder", "s3://bucket/model"), 3),
    (("calibrate", "s3://bucket/model", "SET"), 2),
    (("fuse", "s3://bucket/model", "SET"), 2),
    (("autotune", "s3://bucket/model", "--pairs", "PAIRS"), 3),
]


def call(name: str, wanted: str) -> list[str]:
    """Arguments with an address for one parameter, and something for every other that is needed."""
    hints, found = get_type_hints(COMMANDS[name], include_extras=True), [name]
    for parameter in inspect.signature(COMMANDS[name]).parameters.values():
        if parameter.name != wanted and parameter.default is not inspect.Parameter.empty:
            continue
        kind, info = get_args(hints[parameter.name])[:2]
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        value = "s3://bucket/key" if parameter.name == wanted else choices[0] if choices else "x"
        option = f"--{parameter.name.replace('_', '-')}"
        found += [option, value] if isinstance(info, OptionInfo) else [value]
    return found


@pytest.fixture(scope="module")
def judged_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of one question."""
    qrels = "query-id\tcorpus-id\tscore\nq1\tdune\t1\n"
    return write_beir(tmp_path_factory.mktemp("set"), {"q1": "who wrote dune"}, qrels)


def test_the_sweep_finds_paths() -> None:
    assert {("train", "config"), ("index", "to"), ("models", "add"), ("fuse", "work")} <= set(LOCAL)


@pytest.mark.parametrize(("name", "parameter"), LOCAL, ids=["-".join(one) for one in LOCAL])
def test_an_address_for_a_local_path_is_refused(
    name: str, parameter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, call(name, parameter))
    assert found.exit_code == 2, found.output
    said = " ".join(found.output.split())
    assert "s3://bucket/key is an address" in said
    remedy = "write it to this machine" if (name, parameter) in WRITTEN else "copy it to this machine"
    assert remedy in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "code"), MODELS, ids=[" ".join(words) for words, _ in MODELS])
def test_an_address_for_a_model_is_refused(
    arguments: tuple[str, ...], code: int, judged_set: Path, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "a", "passage": "b"}\n')
    given = {"SET": str(judged_set), "PAIRS": str(pairs)}
    found = CliRunner().invoke(app, [given.get(one, one) for one in arguments])
    assert found.exit_code == code, found.output
    said = " ".join(found.output.split())
    assert "s3://bucket/model is an address" in said
    assert "copy it to this machine" in said
    assert found.exception is None or isinstance(found.exception, SystemExit)
