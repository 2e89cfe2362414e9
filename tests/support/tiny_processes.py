"""A tiny training in several processes, started as torchrun would, but forked, so that the imports are paid once.

    python -m tests.support.tiny_processes FOLDER COUNT [STAGE STEP]

With a stage and a step the main process kills itself with SIGKILL when it has reported that step's loss, and the others
are killed as a launcher kills them; then all are started anew.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from rerank_core.config.training import TrainingConfig
from rerank_core.training.distributed import join
from rerank_core.training.finetune import finetune
from rerank_core.training.groups import write_groups
from rerank_core.training.metrics_log import Line, MetricsLog
from tests.support.tiny_models import write_cross_encoder
from tests.support.tiny_training import make_dev, make_groups, training_config


def even(folder: Path, **fields: Any) -> TrainingConfig:
    """Stages without dropout: of pairs, whose accumulation two processes share, and of lists, whose batch they do."""
    if not (folder / "base").is_dir():
        still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        write_cross_encoder(folder / "base", initializer_range=0.05, **still)
    tags = {"policy": "keep", "tag_dropout": 0.2}
    return training_config(
        folder,
        {"name": "pairs", "batch": 3, "accumulation": 2, "epochs": 2, "tags": tags},
        {"name": "lists", "loss": "listwise", "epochs": 3, "tags": tags},
        checkpoint_steps=3,
        **fields,
    )


def together(folder: Path, settings: TrainingConfig, *, on_line: Any = lambda line: None) -> Path:
    """Train in this process among the others."""
    with join() as processes:
        work = folder / "work"
        files = [work / f"data-{number}.arrow" for number, _ in enumerate(settings.stages)]
        with processes.main_first():
            work.mkdir(parents=True, exist_ok=True)
            for number, path in enumerate(files):
                if not path.exists():
                    write_groups(make_groups(12, seed=number), path)
        return finetune(
            settings,
            files,
            {"": make_dev(make_groups(6))},
            folder=work,
            figures=MetricsLog(folder / "figures.jsonl"),
            on_line=on_line,
            processes=processes,
        )


def _child(folder: Path, index: int, death: tuple[str, int] | None) -> None:
    def on_line(line: Line) -> None:
        assert index == 0
        if (line["kind"], line["stage"], line["step"]) == ("loss", *(death or ())):
            os.kill(os.getpid(), signal.SIGKILL)

    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index)}
    together(folder, even(folder), on_line=on_line)


def start(folder: Path, count: int, port: int, death: tuple[str, int] | None = None) -> list[int]:
    """Run the processes, and give their statuses; when one dies the others are killed."""
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    left: dict[int, int] = {}
    for index in range(count):
        if (child := os.fork()) == 0:
            try:
                _child(folder, index, death)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        left[child] = index
    statuses = [0] * count
    while left:
        child, status = os.wait()
        statuses[left.pop(child)] = status
        if status:
            for other in left:
                os.kill(other, signal.SIGKILL)
    return statuses


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


if __name__ == "__main__":
    place, many, *dying = sys.argv[1:]
    even(Path(place))
    if dying:
        found = start(Path(place), int(many), free_port(), (dying[0], int(dying[1])))
        assert found[0] == signal.SIGKILL, found
    found = start(Path(place), int(many), free_port())
    assert not any(found), found
