"""A stage on Beam: its three outputs, in the background too."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.beam_options import beam_options
from pipelines.nightly.shard_stage import Handled, ShardStage
from rerank_core.errors import ScoringFailed
from schemas.records import Rejected

SHARDS = 7


class Numbered(NamedTuple):
    """As little of a shard as a stage needs."""

    number: int


class Record(ShardStage):
    """Appends its step and the shard's number to the notes."""

    step = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def handle(self, shard: Any) -> Handled:
        note(self._folder, f"{self.step} {shard.number}")
        return Handled(shard, [], {"in": 1})


class Prepare(Record):
    step = "prepare"


class Finish(Record):
    step = "finish"


class Wait(ShardStage):
    """Sleeps, rejects one record per shard, and raises an error at shard `fails_at`."""

    def __init__(self, folder: Path, *, in_background: bool, fails_at: int = -1) -> None:
        self._folder, self.in_background, self._fails_at = folder, in_background, fails_at
        self._at_work = 0

    def handle(self, shard: Any) -> Handled:
        self._at_work += 1
        assert self._at_work == 1, "two shards at a time"
        note(self._folder, f"begin {shard.number}")
        if self.in_background:
            assert threading.current_thread().name == "Wait"
        if shard.number == self._fails_at:
            raise ScoringFailed("simulated failure")
        time.sleep(0.02)
        note(self._folder, f"end {shard.number}")
        self._at_work -= 1
        return Handled(shard, [Rejected("Wait", "pair", str(shard.number), "test", "")], {"in": 1})


def note(folder: Path, text: str) -> None:
    with (folder / "notes").open("a") as file:
        file.write(text + "\n")


def run(folder: Path, *stages: ShardStage, shards: int = SHARDS) -> list[str]:
    """Run the stages over some shards, in one bundle, and check their outputs; what they noted."""
    with beam.Pipeline(options=beam_options(())) as pipeline:
        made = pipeline | beam.Create([[Numbered(n) for n in range(shards)]]) | beam.FlatMap(lambda all: all)
        outputs = []
        for stage in stages:
            outputs.append(made | stage)
            made = outputs[-1].main
        numbers = made | beam.Map(lambda shard: shard.number)
        assert_that(numbers, equal_to(list(range(shards))))
        rejected = [output.rejected for output in outputs] | "Rejected" >> beam.Flatten()
        records = rejected | beam.Map(lambda record: record.record)
        assert_that(records, equal_to([str(n) for n in range(shards)]), label="rejects")
        tallies = [output.tallies for output in outputs] | "Tallies" >> beam.Flatten()
        read = tallies | beam.Filter(lambda tally: tally[0][1] == "in") | beam.CombinePerKey(sum)
        expected = [((stage.name, "in"), shards) for stage in stages]
        assert_that(read, equal_to(expected if shards else []), label="tallies")
    notes = folder / "notes"
    return notes.read_text().splitlines() if notes.exists() else []


def test_a_stage_in_the_background_overlaps_with_those_around_it(tmp_path: Path) -> None:
    """The next shard is prepared before one is done, and one is finished after the next has begun; all in order."""
    notes = run(tmp_path, Prepare(tmp_path), Wait(tmp_path, in_background=True), Finish(tmp_path))
    at = notes.index
    for n in range(SHARDS - 1):
        assert at(f"prepare {n + 1}") < at(f"end {n}") < at(f"begin {n + 1}")
    for step in ("prepare", "begin", "end", "finish"):
        assert [note for note in notes if note.startswith(step)] == [f"{step} {n}" for n in range(SHARDS)]


def test_without_it_each_shard_goes_through_all_stages_before_the_next(tmp_path: Path) -> None:
    notes = run(tmp_path, Prepare(tmp_path), Wait(tmp_path, in_background=False), Finish(tmp_path))
    steps = ("prepare", "begin", "end", "finish")
    assert notes == [f"{step} {n}" for n in range(SHARDS) for step in steps]


@pytest.mark.parametrize("shards", [0, 1])
def test_a_bundle_of_one_shard_and_none(shards: int, tmp_path: Path) -> None:
    steps = ("prepare", "begin", "end", "finish")
    notes = run(
        tmp_path, Prepare(tmp_path), Wait(tmp_path, in_background=True), Finish(tmp_path), shards=shards
    )
    assert notes == [f"{step} 0" for step in steps if shards]


@pytest.mark.parametrize("fails_at", [0, 3, SHARDS - 1])
def test_what_fails_in_the_background_ends_the_night_under_its_own_name(
    fails_at: int, tmp_path: Path
) -> None:
    with pytest.raises(ScoringFailed, match="simulated failure"):
        run(tmp_path, Wait(tmp_path, in_background=True, fails_at=fails_at))
