"""A training small enough for a test: tiny random models, groups of a few words, stages of a few steps.

    python -m tests.support.tiny_training FOLDER JSON STAGE STEP STAGE STEP ...

trains `two_stages` in FOLDER, with the fields in JSON besides, in a process that kills itself with SIGKILL when it has
reported the loss of the first step, then goes on in a second process that dies at the second, and so on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from rerank_core.config.training import TrainingConfig, parse_training_config
from rerank_core.training.dev_set import DevQuery, DevSet
from rerank_core.training.finetune import finetune
from rerank_core.training.groups import Group, write_groups
from rerank_core.training.metrics_log import Line, MetricsLog
from tests.support.tiny_models import write_cross_encoder

WORDS = "who wrote the novel dune was written by frank herbert sand moves".split()
HEADS = ("[HOP:0] [ROLE:Question]", "[HOP:1] [ROLE:Definition]", "[HOP:-1] [ROLE:Question] [CAUSAL]")


def make_groups(count: int, *, seed: int = 0) -> list[Group]:
    """Groups of three to five passages; the positive holds a word of the query."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        size = draw.randint(3, 5)
        query = " ".join(draw.sample(WORDS, 3))
        passages = [" ".join(draw.sample(WORDS, 4)) for _ in range(size)]
        passages[0] += f" {query}"
        tags = tuple(draw.choice(HEADS) for _ in range(size))
        logits = (draw.uniform(1, 2), *(draw.uniform(-2, -1) for _ in range(size - 1)))
        made.append(Group(f"{number:016x}", query, tuple(passages), tags, logits, draw.uniform(-1, 1), 3))
    return made


def make_dev(groups: list[Group], name: str = "dev") -> DevSet:
    """A judged set whose relevant passages are the positives."""
    queries = tuple(
        DevQuery(
            one.key, one.query, tuple(map(str, range(len(one.passages)))), one.passages[::-1], one.tags[::-1]
        )
        for one in groups
    )
    return DevSet(name, queries, {one.key: {str(len(one.passages) - 1): 1} for one in groups})


def training_config(folder: Path, *stages: dict[str, Any], **fields: Any) -> TrainingConfig:
    """A training of a tiny BERT, which is written if it is not there."""
    base = folder / "base"
    if not base.is_dir():
        write_cross_encoder(base, initializer_range=0.05)
    shared = {"runs": ["night"], "lr": 1e-3, "batch": 4}
    raw = {"model": str(base), "output": str(folder / "out"), "max_length": 32, "log_steps": 1, **fields}
    return parse_training_config(raw | {"stages": [shared | stage for stage in stages]})


def two_stages(folder: Path, **fields: Any) -> TrainingConfig:
    """Pairs with tags and accumulation, then lists with replay and growing difficulty."""
    tags = {"policy": "keep", "tag_dropout": 0.2, "tag_shuffle": 0.2, "tag_forge": 0.2}
    return training_config(
        folder,
        {"name": "pairs", "epochs": 2, "accumulation": 2, "tags": tags},
        {
            "name": "lists",
            "loss": "listwise",
            "epochs": 2,
            "tags": tags,
            "replay": 0.25,
            "difficulty": "growing",
        },
        checkpoint_steps=3,
        **fields,
    )


def train(
    folder: Path, settings: TrainingConfig, *, on_line: Any = lambda line: None, dev: bool = True
) -> Path:
    """Train on generated groups, with their first ones as the dev set; gives the model's folder."""
    torch.set_num_threads(1)
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    data = []
    for number, _ in enumerate(settings.stages):
        data.append(work / f"data-{number}.arrow")
        write_groups(make_groups(12, seed=number), data[-1])
    devs = {"": make_dev(make_groups(6))} if dev else {}
    figures = MetricsLog(folder / "figures.jsonl")
    return finetune(settings, data, devs, folder=work, figures=figures, on_line=on_line)


def die(folder: Path, stage: str, step: int, **fields: Any) -> None:
    """Train until the loss of that step, and die."""

    def on_line(line: Line) -> None:
        if (line["kind"], line["stage"], line["step"]) == ("loss", stage, step):
            os.kill(os.getpid(), signal.SIGKILL)

    train(folder, two_stages(folder, **fields), on_line=on_line)


def main(folder: Path, fields: dict[str, Any], deaths: list[tuple[str, int]]) -> None:
    """A process a death, forked before torch has any threads, so that the imports are paid once."""
    for stage, step in deaths:
        process = os.fork()
        if process == 0:
            die(folder, stage, step, **fields)
            os._exit(1)  # it did not die
        _, status = os.waitpid(process, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"the process that should die at {stage} {step} ended with status {status}")
        print(*sorted(path.name for path in (folder / "work").glob("[0-9]*/*")))


if __name__ == "__main__":
    dying = list(zip(sys.argv[3::2], map(int, sys.argv[4::2]), strict=True))
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), dying)
