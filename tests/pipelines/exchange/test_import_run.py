"""Training data of others, from a file to the groups that training reads, and to a model."""

from __future__ import annotations

import datetime
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.exchange.export import export
from pipelines.exchange.import_run import import_files
from pipelines.exchange.rows import examples
from pipelines.storage import runs
from pipelines.train.data import prepare_stage
from rerank_core.config.training import Negatives, TrainingStage
from rerank_core.errors import OutputError, SourceError
from rerank_core.training.groups import Group, GroupFile
from tests.conftest import Night
from tests.support.killed import count_changes, killed
from tests.support.local_data import write_lines
from tests.support.object_store import MemoryFileSystem

DATE = datetime.date(2026, 3, 9)
NOW = datetime.datetime(2026, 3, 9, 12, tzinfo=datetime.UTC)


def bring_in(*files: Any, to: Any, format: str = "flagembedding") -> Any:
    return import_files([str(file) for file in files], format=format, to=str(to), run_date=DATE, now=NOW)


def groups(output: Any, folder: Path, **fields: Any) -> list[Group]:
    stage = TrainingStage("one", (str(output),), **fields)
    path = folder / f"{len(list(folder.iterdir()))}.arrow"
    record = prepare_stage(stage, path)
    file = GroupFile(path)
    return [file[number] for number in range(record["counts"]["groups"])]


@pytest.fixture
def exported(night: Night, tmp_path: Path) -> Path:
    export(str(night.output), format="flagembedding", to=str(tmp_path / "night.jsonl"))
    return tmp_path / "night.jsonl"


@pytest.mark.parametrize("source", ["hard_negatives", "training_pairs"])
def test_a_night_that_was_exported_trains_as_the_night_itself(
    night: Night, exported: Path, tmp_path: Path, source: Any
) -> None:
    done = bring_in(exported, to=tmp_path / "imported")
    assert done.counts["examples"] == len(list(examples(str(night.output), night.manifest))) > 0
    (tmp_path / "work").mkdir()
    before, after = (
        groups(output, tmp_path / "work", source=source, negatives=Negatives(9, 9))
        for output in (night.output, tmp_path / "imported")
    )
    assert [(one.query, one.passages[0]) for one in after] == [(one.query, one.passages[0]) for one in before]
    assert [set(one.passages) for one in after] == [set(one.passages) for one in before]
    for one, other in zip(after, before, strict=True):
        scores = (dict(zip(group.passages, np.float32(group.logits), strict=False)) for group in (one, other))
        mine, theirs = scores
        assert mine == theirs
        assert set(one.tags) <= {""}


def test_sentence_transformers_data_trains_a_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from pipelines.train.run import train
    from tests.support.tiny_models import write_cross_encoder
    from tests.support.tiny_nights import make_training

    rows = [
        {"anchor": f"who wrote book {n}", "positive": f"book {n} was written", "negative": f"rain {n}"}
        for n in range(8)
    ]
    bring_in(write_lines(tmp_path / "a.jsonl", rows), to=tmp_path / "imported", format="st-triplet")
    base = write_cross_encoder(tmp_path / "base", initializer_range=0.05)
    stage = {"source": "training_pairs", "tags": {"policy": "drop"}, "epochs": 1}
    config = make_training(tmp_path / "imported", base, tmp_path, stage=stage)
    done = train(config, command="nightrank train", toml="")
    assert done is not None
    assert done.data[0]["runs"][0]["labels"] == "import"
    assert "onnx" in {path.name for path in Path(done.path).iterdir()}


def test_a_text_that_looks_like_a_tag_is_no_tag(tmp_path: Path) -> None:
    row = {"anchor": "[HOP:0] who", "positive": "[CAUSAL] p", "negative": "n"}
    bring_in(write_lines(tmp_path / "a.jsonl", [row]), to=tmp_path / "out", format="st-triplet")
    (tmp_path / "work").mkdir()
    (group,) = groups(tmp_path / "out", tmp_path / "work", source="training_pairs")
    assert (group.query, group.passages, set(group.tags)) == ("(HOP:0) who", ("(CAUSAL) p", "n"), {""})


def test_the_same_files_give_the_same_run_and_others_another(exported: Path, tmp_path: Path) -> None:
    first, again = bring_in(exported, to=tmp_path / "out"), bring_in(exported, to=tmp_path / "out")
    assert first == again
    other = write_lines(tmp_path / "b.jsonl", [{"query": "q", "pos": ["p"], "neg": ["n"]}])
    assert bring_in(other, to=tmp_path / "out").run_id != first.run_id
    manifest = runs.open_run(str(tmp_path / "out"), first.run_id)
    runs.check_run(str(tmp_path / "out"), manifest)
    assert set(manifest.source["files"]) == {str(exported)}


def test_many_rows_are_divided_between_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.exchange.import_run._ROWS", 5)
    rows = [{"query": f"q{n // 2}", "pos": [f"p{n}"], "neg": ["n1", "n2"]} for n in range(10)]
    done = bring_in(write_lines(tmp_path / "a.jsonl", rows), to=tmp_path / "out")
    manifest = runs.open_run(str(tmp_path / "out"))
    assert done.counts == {"examples": 10, "queries": 5, "training_pairs": 30}
    assert manifest.tables["training_pairs"].rows == 30
    assert len(manifest.tables["training_pairs"].files) == 5
    (tmp_path / "work").mkdir()
    assert len(groups(tmp_path / "out", tmp_path / "work", source="training_pairs")) == 10


def test_an_object_store_holds_the_same_run(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "objects", {"mem://bucket/a.jsonl": exported.read_bytes()})
    there = bring_in("mem://bucket/a.jsonl", to="mem://bucket/out")
    here = bring_in(exported, to=tmp_path / "out")
    assert there.counts == here.counts
    manifests = [runs.open_run(folder) for folder in ("mem://bucket/out", str(tmp_path / "out"))]
    assert manifests[0].tables == manifests[1].tables


def test_a_killed_import_shows_a_whole_run_and_is_made_again(tmp_path: Path) -> None:
    files = [
        write_lines(tmp_path / name, [{"query": name, "pos": ["p"], "neg": ["n"]}]) for name in ("a", "b")
    ]
    before, output = tmp_path / "before", tmp_path / "out"
    first = bring_in(files[0], to=before)
    for step in itertools.count():
        shutil.copytree(before, output)
        with killed(output, at=step):
            bring_in(files[1], to=output)
        newest = runs.open_run(str(output))
        runs.check_run(str(output), newest)
        if step == count_changes():
            break
        shutil.rmtree(output)
    assert newest.run_id != first.run_id
    assert not [path for path in output.rglob("*") if ".tmp-" in path.name or path.name == "_staging"]
    # What a kill leaves, the next import removes.
    shutil.rmtree(output)
    shutil.copytree(before, output)
    with killed(output, at=step // 2):
        bring_in(files[1], to=output)
    assert bring_in(files[1], to=output).run_id == newest.run_id
    assert not [path for path in output.rglob("*") if ".tmp-" in path.name or path.name == "_staging"]


def test_what_cannot_be_imported_is_refused_and_nothing_is_left(night: Night, tmp_path: Path) -> None:
    scored = {"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1], "neg_scores": [0]}
    mixed = write_lines(tmp_path / "a.jsonl", [scored, {"query": "q2", "pos": ["p"], "neg": ["n"]}])
    with pytest.raises(SourceError, match="some records have scores and others have none"):
        bring_in(mixed, to=tmp_path / "out")
    assert not any(path.is_file() and path.name != "_lock" for path in (tmp_path / "out").rglob("*"))
    with pytest.raises(SourceError, match="the files hold no example"):
        bring_in(write_lines(tmp_path / "b.jsonl", []), to=tmp_path / "out")
    with pytest.raises(OutputError, match="holds nights, which readers are served"):
        bring_in(mixed, to=night.output)
    with pytest.raises(SourceError, match=r"cannot read .*absent"):
        bring_in(tmp_path / "absent", to=tmp_path / "out")
