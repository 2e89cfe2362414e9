"""The configuration of a training: one TOML file. `examples/train.toml` documents every field and its default.

A training is a list of stages; each reads published runs and starts from the previous stage's model. Errors are those
of `rerank_core.config.toml`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rerank_core.config.backends import gives_cosines
from rerank_core.config.remining import Remining, resolve
from rerank_core.config.toml import (
    STRICT,
    NonNegative,
    Positive,
    Share,
    absolute,
    model_path,
    read_toml,
    refuse_addresses,
    validate,
)
from rerank_core.errors import ConfigError

TEACHER_LOSSES = frozenset({"margin_mse", "distil"})
"""Losses that learn from the logits of the night's model."""


@dataclass(frozen=True, config=STRICT)
class Negatives:
    """Which of a positive's published negatives are taken, and how many at most."""

    hard: NonNegative = 5
    easy: NonNegative = 1
    near_copies: Share = 0.95

    def __post_init__(self) -> None:
        if self.hard + self.easy == 0:
            raise ValueError("hard = 0 and easy = 0 leave no negatives to learn from; raise one of them")


@dataclass(frozen=True, config=STRICT)
class TagPolicy:
    """Which tags the model sees in training; the shares of examples are disjoint."""

    policy: Literal["drop", "keep"] = "drop"
    tag_dropout: Share = 0.0
    tag_shuffle: Share = 0.0
    tag_forge: Share = 0.0

    def __post_init__(self) -> None:
        total = self.tag_dropout + self.tag_shuffle + self.tag_forge
        if total > 1 + 1e-9:
            raise ValueError(
                f"tag_dropout, tag_shuffle and tag_forge are disjoint shares but add up to {total:g}; lower them to "
                "1 or less in total"
            )
        if self.policy == "drop" and total > 0:
            raise ValueError(
                "tag_dropout, tag_shuffle and tag_forge have no effect with policy = 'drop', which shows no tags; "
                "set policy = 'keep', or remove them"
            )


@dataclass(frozen=True, config=STRICT)
class TrainingStage:
    """One stage: its data, its loss and its schedule."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    runs: Annotated[tuple[str, ...], Field(min_length=1)]
    source: Literal["hard_negatives", "training_pairs"] = "hard_negatives"
    loss: Literal["bce", "listwise", "lambda", "ranknet", "margin_mse", "distil"] = "bce"
    pos_weight: Annotated[float, Field(gt=0)] = 1.0
    lr: Annotated[float, Field(gt=0, lt=1)] = 2e-5
    epochs: Positive = 1
    batch: Positive = 8
    accumulation: Positive = 1
    warmup: Share = 0.1
    negatives: Negatives = Negatives()
    tags: TagPolicy = TagPolicy()
    difficulty: Literal["off", "growing"] = "off"
    replay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dev: str = ""

    def __post_init__(self) -> None:
        if self.source == "training_pairs":
            needs = f"loss = '{self.loss}'" if self.loss in TEACHER_LOSSES else ""
            needs = needs or ("difficulty = 'growing'" if self.difficulty == "growing" else "")
            if needs:
                raise ValueError(
                    f"{needs} needs logits and margins, which training_pairs does not have; set source = "
                    "'hard_negatives'"
                )
        if self.pos_weight != 1.0 and self.loss != "bce":
            raise ValueError(
                f"pos_weight = {self.pos_weight:g} has an effect with loss = 'bce' only; remove it"
            )


def check_rounds(stages: Sequence[TrainingStage], remining: Remining) -> None:
    """Refuse stages whose negatives cannot be mined again.

    Raises:
        ValueError: naming the stage and the remedy.
    """
    judge = remining.false_negatives
    for stage in stages:
        if stage.source != "hard_negatives":
            raise ValueError(
                f"stage {stage.name!r} reads {stage.source}, which has no ids of the positives to mine for; "
                "set source = 'hard_negatives', or rounds = 1"
            )
        if stage.loss in TEACHER_LOSSES and (judge.judge != "teacher" or gives_cosines(judge.backend)):
            raise ValueError(
                f"stage {stage.name!r} learns a teacher's logits (loss = {stage.loss!r}), which in a second round "
                "would be the model's own; name a cross-encoder as remining.false_negatives.teacher, or set rounds = 1"
            )
        if re.search(r"-r[0-9]+$", stage.name):
            raise ValueError(
                f"stage {stage.name!r} is named like a stage of a later round; remove the '-rN' at the end"
            )


@dataclass(frozen=True, config=STRICT)
class Lora:
    """Low-rank adapters, trained instead of the weights and merged into them; r = 0: none, all weights are trained."""

    r: NonNegative = 0
    alpha: Positive = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["auto"] | Annotated[tuple[str, ...], Field(min_length=1)] = "auto"


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """The configuration of a training."""

    model: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    stages: Annotated[tuple[TrainingStage, ...], Field(min_length=1)]
    dev: str = ""
    dev_queries: Positive = 200
    dev_top_k: Positive = 50
    patience: NonNegative = 2
    seed: int = 7
    max_length: Annotated[int, Field(ge=8)] = 256
    precision: Literal["fp32", "bf16"] = "fp32"
    dropout: bool = False
    checkpoint_steps: Positive = 200
    log_steps: Positive = 10
    licence: str = ""
    tensorboard: bool | str = False
    lora: Lora = Lora()
    rounds: Positive = 1
    remining: Remining = Remining()

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two stages have the name {name!r}; rename one of them")
        if self.rounds > 1:
            check_rounds(self.stages, self.remining)
        if self.stages[0].replay > 0:
            raise ValueError(
                f"stage {names[0]!r} is the first, so it has nothing to replay; set replay = 0.0"
            )
        for number, stage in enumerate(self.stages):
            earlier = [before.name for before in self.stages[:number] if before.source == "training_pairs"]
            if stage.replay > 0 and stage.loss in TEACHER_LOSSES and earlier:
                raise ValueError(
                    f"stage {stage.name!r} replays {earlier[0]!r} with loss = {stage.loss!r}, but training_pairs, "
                    "which that stage reads, has no logits; read hard_negatives there, or set replay = 0.0"
                )

    @property
    def keeps_tags(self) -> bool:
        """Whether any stage shows the model tags, so that they must be in its vocabulary."""
        return any(stage.tags.policy == "keep" for stage in self.stages)

    @property
    def reads_tags(self) -> bool:
        """Whether the finished model reads tags: whether its last stage does."""
        return self.stages[-1].tags.policy == "keep"

    def dev_of(self, stage: TrainingStage) -> str:
        """The dev set that a stage is measured on; "" for none."""
        return stage.dev or self.dev


def load_training_config(path: str | Path, **overrides: Any) -> TrainingConfig:
    """Read a training's configuration; relative paths in it start from the file's own folder.

    Args:
        path: the TOML file.
        overrides: fields that override the file's.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a wrong type or value.
    """
    path = Path(path)
    raw = read_toml(path, example="examples/train.toml") | overrides
    return parse_training_config(raw, base=path.parent, name=str(path))


def parse_training_config(
    raw: dict[str, Any], *, base: Path = Path(), name: str = "training"
) -> TrainingConfig:
    """Turn parsed TOML into a TrainingConfig; `base` is the folder that relative paths start from."""
    config = validate(TrainingConfig, raw, name=name)
    if "://" in config.output:
        raise ConfigError(
            f"{name}: output = {config.output!r} is not a local folder; train into one and copy it afterwards"
        )
    mined = config.remining
    local = {
        "model": config.model,
        "tensorboard": config.tensorboard,
        "remining.dense.model": mined.dense.model,
        "remining.dense.corpus": mined.dense.corpus,
        "remining.false_negatives.teacher": mined.false_negatives.teacher,
    }
    refuse_addresses(local, name=name, written=("tensorboard",))
    stages = tuple(
        dataclasses.replace(
            stage, runs=tuple(absolute(run, base) for run in stage.runs), dev=absolute(stage.dev, base)
        )
        for stage in config.stages
    )
    return dataclasses.replace(
        config,
        model=model_path(config.model, base),
        output=absolute(config.output, base),
        dev=absolute(config.dev, base),
        tensorboard=absolute(config.tensorboard, base),
        stages=stages,
        remining=resolve(config.remining, base),
    )


def to_dict(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as JSON data, with lists for tuples."""
    data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return data


def split_run(name: str) -> tuple[str, str]:
    """(output folder, run_id) of "folder" or "folder@run_id"; run_id "" is the newest."""
    folder, at, run_id = name.rpartition("@")
    if at and folder and run_id.replace("-", "").isalnum():
        return folder, run_id
    return name, ""
