"""Inputs that are replaced while a night runs: no run mixes two, and none is published under the id of another."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.nightly.queries import merge_queries
from pipelines.nightly.run import run
from pipelines.plan.run import run_plan
from pipelines.sources.local import source
from pipelines.storage.clean import clean
from pipelines.storage.filesystem import write_bytes
from rerank_core.errors import NightError, SourceUnavailable
from tests.conftest import MakeConfig
from tests.support.fakes import fake, forbidden
from tests.support.tiny import DAY


@pytest.mark.parametrize("how", ["replaced", "changed in place", "shortened"])
@pytest.mark.parametrize("when", ["before it is read", "while it is read"])
def test_a_log_that_is_replaced_meanwhile_stops_the_night(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, when: str
) -> None:
    """Rows of one log would be published under the fingerprint of another."""
    log = tmp_path / "log.jsonl"
    shutil.copy(make_config().source.log, log)

    def change() -> None:
        data = log.read_bytes()
        if how == "replaced":
            log.unlink()
        log.write_bytes(data[:-1] if how == "shortened" else data.replace(b"Dune", b"Rune"))

    change_log(monkeypatch, change, when=when)
    with pytest.raises(SourceUnavailable, match=rf"^the log {log} was replaced during the run"):
        run(make_config(source={"log": str(log)}), run_date=DAY, load=fake())
    assert not list((tmp_path / "output").glob("runs/*"))


@pytest.mark.parametrize("when", ["before it is read", "while it is read"])
def test_a_log_that_only_grows_meanwhile_is_read(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    log = tmp_path / "log.jsonl"
    shutil.copy(make_config().source.log, log)
    with log.open("ab") as file:
        change_log(monkeypatch, lambda: (file.write(b"\n"), file.flush()), when=when)
        run(make_config(source={"log": str(log)}), run_date=DAY, load=fake())


def change_log(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], *, when: str) -> None:
    """Change a log once: after the night was prepared, or as a worker has read its first event."""
    left = [change]

    def once() -> None:
        while left:
            left.pop()()

    if when == "before it is read":
        monkeypatch.setattr("pipelines.nightly.run.clean", lambda output: (once(), clean(output)))
        return
    read_events = source.read_events

    def read(*args: Any, **options: Any) -> Iterator[Any]:
        for one in read_events(*args, **options):
            once()
            yield one

    monkeypatch.setattr(source, "read_events", read)


@pytest.mark.parametrize("place", ["local", "store"])
def test_labels_that_are_replaced_meanwhile_stop_the_night(
    make_config: MakeConfig,
    tmp_path: Path,
    stored: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """Pairs of one judgement would be published under an id that stands for another."""
    folder = str(tmp_path) if place == "local" else "mem://bucket"
    names = {"queries": f"{folder}/queries.jsonl", "qrels": f"{folder}/qrels.tsv"}
    write_bytes(names["queries"], b'{"_id": "1", "text": "Who wrote Dune"}\n')
    write_bytes(names["qrels"], b"1\tdune\t1\n")

    def replaced(output: str) -> None:  # after the night was prepared, before its workers start
        write_bytes(names["qrels"], b"1\tlem\t1\n")
        clean(output)

    monkeypatch.setattr("pipelines.nightly.run.clean", replaced)
    with pytest.raises(NightError, match=rf"^the labels {names['qrels']} were replaced during the run; run"):
        run(make_config(labels={"source": "qrels", **names}), run_date=DAY, load=fake())
    assert not list((tmp_path / "output").glob("runs/*"))


def test_labels_that_are_replaced_after_they_were_read_make_another_night(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run says of which labels it is, so that a second start mines anew."""
    names = {"queries": f"{tmp_path}/queries.jsonl", "qrels": f"{tmp_path}/qrels.tsv"}
    write_bytes(names["queries"], b'{"_id": "1", "text": "Who wrote Dune"}\n')
    write_bytes(names["qrels"], b"1\tdune\t1\n")
    config = make_config(labels={"source": "qrels", **names})

    def merged(of: Any) -> None:  # after the workers, before the manifest
        write_bytes(names["qrels"], b"1\tlem\t1\n")
        merge_queries(of)

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.nightly.run.merge_queries", merged)
        first = run_plan(config, run_date=DAY, load=fake())
    second = run_plan(config, run_date=DAY, load=fake())
    assert ("rerank" in first.ran, "rerank" in second.ran) == (True, True)
    assert run_plan(config, run_date=DAY, load=forbidden()).ran == ("report",)
