"""The loop's questions: those that are asked are in the log, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.common import SAMPLE
from benchmarks.loop import SAMPLE_SIZE, divide, prepare
from rerank_core.config.night import load_config
from rerank_core.config.training import load_training_config
from rerank_core.evaluation.qrels import read_qrels, read_queries
from rerank_core.text import query_id

SIZE = SAMPLE_SIZE._replace(asked=20, events=300, gate=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("loop")
    prepare(folder, SAMPLE, SIZE)
    return folder


def test_no_question_is_in_two_parts(folder: Path) -> None:
    parts = {name: read_queries(folder / name / "queries.jsonl") for name in ("asked", "gate", "unseen")}

    assert {name: len(part) for name, part in parts.items()} == {"asked": 20, "gate": 10, "unseen": 82}
    assert len({query.text for part in parts.values() for query in part.values()}) == 112
    for name, part in parts.items():
        assert read_qrels(folder / name / "qrels" / "dev.tsv").keys() == part.keys()


def test_the_log_has_the_asked_questions_alone(folder: Path) -> None:
    ids = {
        name: {query_id(query.text) for query in read_queries(folder / name / "queries.jsonl").values()}
        for name in ("asked", "gate", "unseen")
    }
    with (folder / "log.jsonl").open(encoding="utf-8") as lines:
        typed = {query_id(json.loads(line)["query"]) for line in lines}

    assert ids["asked"] <= typed  # others are misspelt
    assert not typed & (ids["gate"] | ids["unseen"])


def test_the_configurations_can_be_read(folder: Path) -> None:
    night = load_config(folder / "night.toml")

    assert night.plan.train == str(folder / "train.toml")
    assert load_training_config(folder / "train.toml").model


def test_a_set_with_a_train_split_is_asked_from_it_alone(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    texts = {"a": "One?", "b": "two", "c": "ONE?", "d": "three", "e": "four"}
    rows = (json.dumps({"_id": name, "text": text}) for name, text in texts.items())
    (tmp_path / "queries.jsonl").write_text("\n".join(rows) + "\n")
    for split, names in (("train", "ab"), ("dev", "cde")):
        lines = ["query-id\tcorpus-id\tscore", *(f"{name}\tp\t1" for name in names)]
        (tmp_path / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")

    parts = divide(tmp_path, SIZE)

    assert parts["asked"].texts.keys() == {"a", "b"}
    assert parts["gate"].texts.keys() | parts["unseen"].texts.keys() == {
        "d",
        "e",
    }  # "c" is asked in other letters
