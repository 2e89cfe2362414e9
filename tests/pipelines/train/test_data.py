"""What a training reads: published runs as groups."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.nightly.run import run as run_night
from pipelines.train import data
from rerank_core.config.training import TagPolicy, TrainingStage
from rerank_core.features.render import split_tags
from rerank_core.text import query_id
from rerank_core.training.groups import GroupFile
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from schemas.tables import HARD_NEGATIVES
from tests.conftest import Night
from tests.support.fakes import fake
from tests.support.published_run import rewrite
from tests.support.tiny import DAY, Tiny, event, make_config, rows, write_lines


def stage(output: Path | str, **fields: Any) -> TrainingStage:
    return TrainingStage(name="s", runs=(str(output),), **fields)


def groups(path: Path) -> list[Any]:
    file = GroupFile(path)
    return [file[n] for n in range(len(file.facts().keys))]


def test_a_published_run_becomes_groups(night: Night, tmp_path: Path) -> None:
    record = data.prepare_stage(stage(night.output), tmp_path / "a.arrow")

    published = rows(night.output, night.manifest, "hard_negatives")
    found = groups(tmp_path / "a.arrow")
    assert sum(len(one.passages) - 1 for one in found) == record["counts"]["negatives"] == len(published)
    assert (
        record["counts"]["groups"]
        == len(found)
        == len({(r["query_id"], r["positive_id"]) for r in published})
    )
    assert record["runs"][0]["run_id"] == night.manifest.run_id


def test_both_tables_give_the_same_groups(night: Night, tmp_path: Path) -> None:
    held = []
    for source in ("hard_negatives", "training_pairs"):
        data.prepare_stage(stage(night.output, source=source), tmp_path / f"{source}.arrow")
        held.append(sorted((one.query, one.passages) for one in groups(tmp_path / f"{source}.arrow")))
    assert held[0] == held[1]


@pytest.mark.parametrize("source", ["hard_negatives", "training_pairs"])
def test_what_is_a_positive_in_one_run_is_a_negative_of_none(tiny: Tiny, tmp_path: Path, source: str) -> None:
    """People click one thing in one night and another in the next: neither is a negative of the other."""
    outputs = []
    for clicked in ("dune", "messiah"):
        log = write_lines(tmp_path / f"{clicked}.jsonl", [event("who wrote dune", clicked)])
        config = make_config(tiny, tmp_path / clicked, source={"log": str(log)})
        run_night(config, run_date=DAY, load=fake())
        outputs.append(str(tmp_path / clicked))
    both = TrainingStage(name="s", runs=tuple(outputs), source=source)

    record = data.prepare_stage(both, tmp_path / "both.arrow")

    found = groups(tmp_path / "both.arrow")
    positives = {one.passages[0] for one in found}
    assert len(positives) == 2
    assert not any(positives.intersection(one.passages[1:]) for one in found)
    assert record["counts"]["negatives_copies"] == 2
    one_run = data.prepare_stage(stage(outputs[0], source=source), tmp_path / "one.arrow")
    assert not one_run["counts"]["negatives_copies"]


def test_prepared_data_stay_as_they_were(night: Night, tmp_path: Path) -> None:
    """A training that is resumed learns from the run that it began with, not from a newer one."""
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    record = data.prepare_stage(stage(output), tmp_path / "a.arrow")
    shutil.rmtree(output)
    assert data.prepare_stage(stage(output), tmp_path / "a.arrow") == record


def test_of_two_runs_the_newer_one_counts(night: Night, two: tuple[Path, Manifest], tmp_path: Path) -> None:
    output, newer = two
    both = (f"{output}@{night.manifest.run_id}", str(output), f"{output}@{newer.run_id}")

    record = data.prepare_stage(TrainingStage(name="s", runs=both), tmp_path / "a.arrow")

    assert [one["run_id"] for one in record["runs"]] == [newer.run_id, night.manifest.run_id]
    by_run = [
        len({(r["query_id"], r["positive_id"]) for r in rows(output, manifest, "hard_negatives")})
        for manifest in (newer, night.manifest)
    ]
    assert record["counts"]["groups"] + record["counts"]["groups_known"] == sum(by_run)
    assert record["counts"]["groups_known"] > 0


def test_queries_that_are_measured_are_not_trained_on(night: Night, tmp_path: Path) -> None:
    held_out = frozenset({query_id("who wrote dune")})
    record = data.prepare_stage(stage(night.output), tmp_path / "a.arrow", held_out=held_out)
    assert record["counts"]["groups_held_out"] > 0
    assert all(query_id(one.query) not in held_out for one in groups(tmp_path / "a.arrow"))


def test_a_run_that_cannot_be_used_is_named(night: Night, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no published run in .*nowhere"):
        data.find_runs(stage(tmp_path / "nowhere"))
    with pytest.raises(ManifestError, match="no run '20260308-none'"):
        data.find_runs(stage(f"{night.output}@20260308-none"))
    every = frozenset(row["query_id"] for row in rows(night.output, night.manifest, "hard_negatives"))
    with pytest.raises(ManifestError, match="no positive with a negative in .*dev set: [1-9]"):
        data.prepare_stage(stage(night.output), tmp_path / "b.arrow", held_out=every)


def test_tags_that_were_not_published_cannot_be_kept(night: Night, tmp_path: Path) -> None:
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    for table, columns, message in (
        ("training_pairs", ["query"], "training_pairs of a model that reads no tags; set source"),
        (
            "hard_negatives",
            ["positive_tags", "negative_tags"],
            "was published without tags; turn tags.enabled on",
        ),
    ):

        def bare(held: pa.Table, columns: Sequence[str] = columns) -> pa.Table:
            rows = [
                {**row, **{name: split_tags(row[name])[1] for name in columns}} for row in held.to_pylist()
            ]
            return pa.Table.from_pylist(rows, schema=held.schema)

        rewrite(output, night.manifest, table, bare)
        kept = stage(output, source=table, tags=TagPolicy(policy="keep"))
        with pytest.raises(ManifestError, match=message):
            data.prepare_stage(kept, tmp_path / f"{table}.arrow")


def test_a_file_of_another_version_is_named(night: Night, tmp_path: Path) -> None:
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    newer = HARD_NEGATIVES.with_metadata({**HARD_NEGATIVES.metadata, b"schema_version": b"9"})
    rewrite(output, night.manifest, "hard_negatives", lambda table: table.cast(newer))
    with pytest.raises(
        ManifestError,
        match=r"part-00000-of-00003\.parquet has version 9 of hard_negatives.*install a newer Nightrank",
    ):
        data.prepare_stage(stage(output), tmp_path / "a.arrow")
