"""What several commands share: grades by set, one bar at a time, and defaults that are those of the functions."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipelines.cli import calibrate as cli_calibrate
from pipelines.cli import console
from pipelines.cli import evaluate as cli_evaluate
from pipelines.cli import fuse as cli_fuse
from pipelines.cli.app import app
from pipelines.cli.options import min_relevance, not_empty, set_progress
from pipelines.evaluate.calibrate import calibrate
from pipelines.evaluate.fuse import fuse
from pipelines.evaluate.run import evaluate
from rerank_core.errors import ConfigError

OF_THE_TERMINAL = {"quiet", "as_json", "output", "per_query", "plot"}
NAMED_OTHERWISE = {"system": "systems"}


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (cli_evaluate.evaluate, evaluate),
        (cli_fuse.fuse, fuse),
        (cli_calibrate.calibrate, calibrate),
    ],
)
def test_options_and_arguments_of_the_functions_have_the_same_defaults(
    command: Callable[..., Any], function: Callable[..., Any]
) -> None:
    options = {
        NAMED_OTHERWISE.get(name, name): option.default
        for name, option in inspect.signature(command).parameters.items()
        if name not in OF_THE_TERMINAL
    }
    arguments = {
        name: argument.default
        for name, argument in inspect.signature(function).parameters.items()
        if not name.startswith("on_")
    }
    assert options.keys() == arguments.keys()
    given = {name: default for name, default in options.items() if default is not None}
    assert given == {name: arguments[name] for name in given}


def test_grades_are_of_one_set_or_of_all_others() -> None:
    assert min_relevance([]) == {}
    assert min_relevance(["2", "trec_dl19=3", "a=b=1"]) == {"": 2, "trec_dl19": 3, "a=b": 1}
    for spec in ("high", "tiny=", "tiny=0", "-1"):
        with pytest.raises(ConfigError, match="has no grade; give 2, or SET=2"):
            min_relevance([spec])


def test_each_bar_closes_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    @contextlib.contextmanager
    def counter(what: str, *, unit: str, show: bool) -> Iterator[Callable[[int], None]]:
        events.append(f"open {what} ({unit})")
        yield lambda more: events.append(f"{what} {more}")
        events.append(f"close {what}")

    monkeypatch.setattr(console, "counter", counter)
    with set_progress(show=True) as (on_indexed, on_scored):
        on_indexed(5)
        on_indexed(7)
        on_scored(32)
    assert events == [
        "open Indexing (passages)",
        "Indexing 5",
        "Indexing 7",
        "close Indexing",
        "open Scoring (pairs)",
        "Scoring 32",
        "close Scoring",
    ]


def test_a_blank_value_is_not_the_default() -> None:
    assert not_empty(None) is None
    assert not_empty("20260308-a") == "20260308-a"
    assert (not_empty("out/"), not_empty("gs://bucket/out/"), not_empty("/")) == (
        "out",
        "gs://bucket/out",
        "/",
    )
    for blank in ("", " "):
        with pytest.raises(typer.BadParameter, match="it is empty"):
            not_empty(blank)


OF_RUNS = (
    *(("runs",), ("diff", "a", "b"), ("verify",), ("sql",), ("rollback",), ("report",), ("release", "a")),
    ("export", "--format", "trec", "--to", "trec"),
)


@pytest.mark.parametrize("command", OF_RUNS, ids=lambda command: command[0])
def test_a_blank_folder_is_not_the_one_that_the_command_runs_in(command: tuple[str, ...]) -> None:
    name, *options = command
    found = CliRunner().invoke(app, [name, "", *options])
    assert (found.exit_code, "it is empty" in found.output) == (2, True)


@pytest.mark.parametrize("command", OF_RUNS, ids=lambda command: command[0])
def test_a_folder_in_an_object_store_keeps_its_two_slashes(command: tuple[str, ...], store: str) -> None:
    name, *options = command
    found = CliRunner().invoke(app, [name, store, *options])
    assert (found.exit_code, store in found.output) == (3, True)


@pytest.mark.parametrize(
    "command", [one for one in OF_RUNS if one != ("sql",)], ids=lambda command: command[0]
)
def test_a_file_system_that_is_not_installed_is_named(command: tuple[str, ...]) -> None:
    name, *options = command
    found = CliRunner().invoke(app, [name, "nosuch://bucket/output", *options])
    assert (found.exit_code, "file system is not installed" in found.output) == (2, True)
