"""Two rounds small enough for a test: a tiny random BERT over the tiny night, with a tiny bi-encoder beside BM25.

    python -m tests.support.tiny_rounds OUTPUT CORPUS FOLDER mining one-r2:3

trains in FOLDER in a process that kills itself with SIGKILL while it mines for the second round, then goes on in a
second process that dies when it has reported the loss of step 3 of stage one-r2, and so on.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from pipelines.train.run import Trained, train
from rerank_core.config.training import TrainingConfig, parse_training_config
from tests.support.tiny_models import write_cross_encoder, write_sentence_folder


def make_rounds(output: Path | str, corpus: Path | str, folder: Path, **fields: Any) -> TrainingConfig:
    """Two rounds over the newest run of `output`; models are written to `folder` if they are not there."""
    if not (folder / "bi").is_dir():
        write_cross_encoder(folder / "base", initializer_range=0.05)
        write_sentence_folder(folder / "bi")
    remining = {
        "dense": {"model": str(folder / "bi"), "corpus": str(corpus), "top_k": 6, "max_length": 48},
        "false_negatives": {"judge": "off"},
        "restart": False,
        **fields.pop("remining", {}),
    }
    stage = {
        "name": "one",
        "runs": [str(output)],
        "tags": {"policy": "keep"},
        "epochs": 1,
        "batch": 4,
        "lr": 1e-3,
    }
    raw = {
        "model": str(folder / "base"),
        "output": str(folder / "model"),
        "max_length": 48,
        "log_steps": 1,
        "checkpoint_steps": 2,
        "rounds": 2,
        "remining": remining,
        "stages": [stage | more for more in fields.pop("stages", [{}])],
    }
    return parse_training_config(raw | fields)


def run(config: TrainingConfig, **options: Any) -> Trained:
    """Train on one thread."""
    torch.set_num_threads(1)
    return train(config, command="nightrank train --config t.toml --rounds 2", toml="rounds = 2", **options)


def _die(config: TrainingConfig, where: str) -> None:
    stage, _, step = where.partition(":")
    second = Path(config.output) / "_training" / "round-2"
    counted = 0

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def on_line(line: dict[str, Any]) -> None:
        if (line["kind"], line["stage"], str(line["step"])) == ("loss", stage, step):
            kill()

    def on_progress(more: int) -> None:
        nonlocal counted
        counted += second.is_dir()
        if where == "mining" and counted == 2:
            kill()

    run(config, resume=True, on_line=on_line, on_progress=on_progress)


def main(output: str, corpus: str, folder: Path, deaths: list[str]) -> None:
    """A process a death, forked before torch has any threads, so that the imports are paid once."""
    config = make_rounds(output, corpus, folder)
    for where in deaths:
        process = os.fork()
        if process == 0:
            _die(config, where)
            os._exit(1)  # it did not die
        _, status = os.waitpid(process, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"the process that should die at {where} ended with status {status}")
        work = folder / "model" / "_training"
        print(*sorted(str(path.relative_to(work)) for path in work.glob("round-2/*")))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
