"""A training's configuration: strict, and its errors say which stage, which field and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rerank_core.config.training import load_training_config, parse_training_config, split_run, to_dict
from rerank_core.errors import ConfigError


def raw(**fields: Any) -> dict[str, Any]:
    stage = {"name": "one", "runs": ["night"], **fields.pop("stage", {})}
    return {"model": "owner/base", "output": "out", "stages": [stage], **fields}


def second(**fields: Any) -> dict[str, Any]:
    first = {"name": "one", "runs": ["night"], "source": fields.pop("first_source", "hard_negatives")}
    return raw(stages=[first, {"name": "two", "runs": ["night"], **fields}])


def judged(**fields: Any) -> dict[str, Any]:
    return {"remining": {"false_negatives": {"judge": "teacher", **fields}}}


def test_three_lines_are_a_training(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(
        'model = "owner/base"\noutput = "model"\n[[stages]]\nname = "one"\nruns = ["../night@20260308-ab"]\n'
    )

    found = load_training_config(tmp_path / "train.toml")

    assert found.model == "owner/base"
    assert found.output == str(tmp_path / "model")
    assert found.stages[0].runs == (f"{tmp_path.parent}/night@20260308-ab",)
    assert (found.stages[0].loss, found.stages[0].negatives.hard, found.stages[0].tags.policy) == (
        "bce",
        5,
        "drop",
    )
    assert parse_training_config(to_dict(found)) == found


def test_a_folder_is_a_model_and_a_name_stays_one(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    assert parse_training_config(raw(model="base"), base=tmp_path).model == str(tmp_path / "base")
    assert parse_training_config(raw(model="owner/base"), base=tmp_path).model == "owner/base"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (raw(modle="x"), "unknown key 'modle'; the nearest known one is 'model'"),
        (raw(stage={"negative": {}}), "unknown key 'stages.0.negative'; .*'stages.0.negatives'"),
        (raw(stage={"tags": {"tag_drop": 1}}), "'stages.0.tags.tag_drop'; .*'stages.0.tags.tag_dropout'"),
        (raw(stage={"loss": "mse"}), "'stages.0.loss' = 'mse': .*'bce'"),
        (raw(stage={"epochs": 1.5}), "'stages.0.epochs' = 1.5: .*integer"),
        (raw(stage={"runs": []}), "'stages.0.runs' = .*at least 1"),
        (raw(lora={"rank": 8}), "unknown key 'lora.rank'; the nearest known one is 'lora.r'"),
        (raw(lora={"r": 8, "target_modules": []}), "lora.target_modules.*at least 1"),
        (raw(lora={"r": 8, "dropout": 1.0}), "'lora.dropout' = 1.0: .*less than 1"),
        (raw(stage={"negatives": {"hard": 0, "easy": 0}}), "leave no negatives to learn from"),
        (raw(stage={"tags": {"policy": "keep", "tag_dropout": 0.7, "tag_forge": 0.4}}), "add up to 1.1"),
        (raw(stage={"tags": {"tag_shuffle": 0.1}}), "set policy = 'keep'"),
        (raw(stage={"source": "training_pairs", "loss": "distil"}), "loss = 'distil' needs logits"),
        (
            raw(stage={"source": "training_pairs", "difficulty": "growing"}),
            "difficulty = 'growing' needs logits",
        ),
        (
            raw(stage={"pos_weight": 2.0, "loss": "lambda"}),
            "pos_weight = 2 has an effect with loss = 'bce' only",
        ),
        (raw(stage={"replay": 0.2}), "stage 'one' is the first, so it has nothing to replay"),
        (second(name="one"), "two stages have the name 'one'"),
        (second(replay=0.1, loss="distil", first_source="training_pairs"), "'two' replays 'one'"),
        (raw(output="gs://bucket/model"), "is not a local folder"),
        (raw(model="s3://bucket/model"), "train.toml: model: s3://bucket/model is an address.* copy it"),
        (raw(tensorboard="s3://bucket/tb"), "tensorboard: s3://bucket/tb is an address.* write it to"),
        (raw(remining={"dense": {"model": "gs://b/m"}}), "remining.dense.model: gs://b/m is an address"),
        (
            raw(remining={"dense": {"model": "m", "corpus": "gs://b/c"}}),
            "remining.dense.corpus: gs://b/c is an address",
        ),
        (raw(**judged(teacher="gs://b/m")), "remining.false_negatives.teacher: gs://b/m is an address"),
        ({"model": "m", "output": "o", "stages": []}, "'stages' = .*at least 1"),
        ({"model": "m", "output": "o"}, "stages"),
        (raw(rounds=0), "'rounds' = 0"),
        (raw(rounds=2, stage={"source": "training_pairs"}), "'one' reads training_pairs, .* or rounds = 1"),
        (
            raw(rounds=2, stage={"loss": "distil"}),
            "'one' learns a teacher's logits .*remining.false_negatives.teacher",
        ),
        (
            raw(rounds=2, stage={"loss": "distil"}, **judged(teacher="t", backend="bi_encoder")),
            "a cross-encoder",
        ),
        (raw(rounds=2, stage={"name": "one-r2"}), "named like a stage of a later round"),
        (
            raw(remining={"mining": {"enabled": False}}),
            "mining.enabled = false leaves a second round without",
        ),
        (
            raw(remining={"mining": {"num_negative": 3}}),
            "the nearest known one is 'remining.mining.num_negatives'",
        ),
        (raw(remining={"dense": {"corpus": "c"}}), "corpus needs model, the bi-encoder"),
        (raw(**judged()), "judge = 'teacher' needs teacher"),
        (raw(**judged(judge="off", teacher="t")), "teacher has no effect with judge = 'off'"),
    ],
)
def test_a_mistake_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_training_config(given, name="train.toml")


def test_adapters_are_off_and_their_layers_can_be_named() -> None:
    assert parse_training_config(raw()).lora.r == 0
    found = parse_training_config(raw(lora={"r": 8, "target_modules": ["query", "key"]})).lora
    assert (found.alpha, found.target_modules) == (16, ("query", "key"))


def test_a_folder_of_events_starts_from_the_file(tmp_path: Path) -> None:
    assert parse_training_config(raw(), base=tmp_path).tensorboard is False
    assert parse_training_config(raw(tensorboard=True), base=tmp_path).tensorboard is True
    assert parse_training_config(raw(tensorboard="logs"), base=tmp_path).tensorboard == str(tmp_path / "logs")


def test_what_rounds_need_is_asked_only_where_there_are_some(tmp_path: Path) -> None:
    assert parse_training_config(raw(stage={"loss": "distil"})).rounds == 1
    taught = raw(rounds=2, stage={"loss": "distil"}, **judged(teacher="t"))
    assert parse_training_config(taught).rounds == 2
    (tmp_path / "t").mkdir()
    dense = {"model": "owner/bi", "corpus": "set/corpus.jsonl"}
    found = parse_training_config(
        raw(remining={"dense": dense, **judged(teacher="t")["remining"]}), base=tmp_path
    )
    assert found.remining.false_negatives.teacher == str(tmp_path / "t")
    assert (found.remining.dense.model, found.remining.dense.corpus) == (
        "owner/bi",
        str(tmp_path / "set" / "corpus.jsonl"),
    )
    assert parse_training_config(to_dict(found)) == found


def test_the_model_reads_tags_if_its_last_stage_did() -> None:
    keep = {"policy": "keep"}
    assert not parse_training_config(second()).keeps_tags
    assert parse_training_config(second(tags=keep)).reads_tags
    dropped = parse_training_config(
        raw(stages=[{"name": "a", "runs": ["n"], "tags": keep}, {"name": "b", "runs": ["n"]}])
    )
    assert (dropped.keeps_tags, dropped.reads_tags) == (True, False)


def test_a_stage_may_have_a_dev_set_of_its_own() -> None:
    found = parse_training_config(second(dev="b") | {"dev": "a"}, base=Path("/x"))
    assert [found.dev_of(stage) for stage in found.stages] == ["/x/a", "/x/b"]


@pytest.mark.parametrize(
    ("named", "parts"),
    [
        ("out", ("out", "")),
        ("out@20260308-ab12", ("out", "20260308-ab12")),
        ("gs://b/out@r1", ("gs://b/out", "r1")),
        ("me@home/out", ("me@home/out", "")),
        ("@r1", ("@r1", "")),
    ],
)
def test_a_run_is_named_behind_an_at(named: str, parts: tuple[str, str]) -> None:
    assert split_run(named) == parts
