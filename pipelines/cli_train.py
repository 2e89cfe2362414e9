"""`nightrank train` as a command; pipelines/cli.py adds it to the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from pipelines import report
from pipelines.cli_options import Json, Quiet


def train(
    config: Annotated[Path, typer.Option("--config", help="The training's TOML; see examples/train.toml.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of a training that was killed.")
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds", min=1, help="Train, mine with the new model, train again ...; default: the TOML's."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="End each stage after 20 steps: to try a configuration out.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a cross-encoder from published runs, for scoring.model of the next night."""
    from pipelines import report_train
    from pipelines import train as training
    from rerank_core.training.curriculum import load_curriculum

    show = not (quiet or as_json) and os.environ.get("RANK", "0") == "0"  # the first of several processes
    curriculum = load_curriculum(config, **({"rounds": rounds} if rounds else {}))
    told = ((f"--rounds {rounds}", rounds), ("--quick", quick))
    flags = [name for name, given in told if given]
    with (
        report.counter("Reading and mining", unit="positives", show=show) as count,
        report_train.training(show=show) as tell,
    ):
        done = training.train(
            curriculum,
            command=" ".join(["nightrank train --config", config.name, *flags]),
            toml=config.read_text(encoding="utf-8"),
            resume=resume,
            quick=quick,
            tell=tell,
            on_progress=count,
        )
    if done and as_json:
        typer.echo(json.dumps(done._asdict(), ensure_ascii=False))
    elif done and not quiet:
        report_train.print_trained(done)
