"""`nightrank train`: fine-tunes a cross-encoder, shows its progress and a summary."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.options import Json, Quiet
from rerank_core.training.dev_set import MEASURE
from rerank_core.training.remine import describe

if TYPE_CHECKING:
    from pipelines.train.run import Trained
    from rerank_core.training.metrics_log import Line


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
    from pipelines.train import run
    from rerank_core.config.training import load_training_config

    show = not (quiet or as_json) and os.environ.get("RANK", "0") == "0"  # the first of several processes
    settings = load_training_config(config, **({"rounds": rounds} if rounds else {}))
    told = ((f"--rounds {rounds}", rounds), ("--quick", quick))
    flags = [name for name, given in told if given]
    with (
        console.counter("Reading and mining", unit="positives", show=show) as count,
        training(show=show) as tell,
    ):
        done = run.train(
            settings,
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
        print_trained(done)


@contextmanager
def training(*, show: bool) -> Iterator[Callable[[Line], None]]:
    """Give a callback that is told each line of figures: a bar a stage, and measures as they come."""
    told = time.monotonic()
    columns = (
        TextColumn("[bold]{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(
        *columns, console=console.err, disable=not (show and console.err.is_terminal), transient=True
    ) as bar:
        tasks: dict[str, Any] = {}

        def tell(line: Line) -> None:
            nonlocal told
            stage = line["stage"]
            if line["kind"] == "loss":
                loss = f"loss {line['loss']:.4f}"
                if stage not in tasks:
                    tasks[stage] = bar.add_task(f"Stage {stage}", total=line["steps"], loss="")
                bar.update(tasks[stage], completed=line["step"], loss=loss)
                if (
                    show
                    and not console.err.is_terminal
                    and time.monotonic() - told > console.LOG_EVERY_SECONDS
                ):
                    told = time.monotonic()
                    console.logger.info(
                        "stage %s: step %s of %s, %s", stage, line["step"], line["steps"], loss
                    )
            elif line["kind"] == "mined" and show:
                console.err.print(f"mined again for {stage}: {escape(describe(line))}", soft_wrap=True)
            elif line["kind"] == "dev" and show:
                best = ", the best so far" if line["best"] else ""
                console.err.print(
                    f"stage {stage}, epoch {line['epoch']:g}: {MEASURE} {100 * line[MEASURE]:.1f} on "
                    f"{escape(line['dev'])}{best}",
                    soft_wrap=True,
                )

        yield tell


def print_trained(done: Trained) -> None:
    """The stages with their figures, what was left out of their data, and how to use the model."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", no_wrap=True)
    for name in ("examples", "steps", "loss", MEASURE, "first set", "forgotten"):
        table.add_column(name, justify="right", no_wrap=True)
    before = next((one for one in done.lines if one["kind"] == "dev" and one["step"] == 0), None)
    if before:
        table.add_row("before", "", "", "", _percent(before[MEASURE]), "", "")
    stages = [one for one in done.lines if one["kind"] == "stage"]
    for one in stages:
        loss = f"{one['loss_first']:.3f} -> {one['loss_last']:.3f}" if one["loss_first"] is not None else ""
        table.add_row(
            one["stage"], f"{one['examples']:,}", f"{one['step']:,}", loss,
            _percent(one.get(MEASURE)), _percent(one.get("first_dev_now")), _percent(one.get("forgotten")),
        )  # fmt: skip
    console.out.print(table)
    rounds = [one for one in done.lines if one["kind"] == "round"]
    if rounds:
        measured = ", ".join(_percent(one.get(MEASURE)) or "not measured" for one in rounds)
        console.out.print(
            f"{MEASURE} after each of {len(rounds)} rounds: {measured}; kept: round {done.round}"
        )
    for one, data in zip(stages, done.data, strict=True):
        _print_data(one, data)
    for said in done.dev_sets:
        console.out.print(f"dev: {escape(said)}; their queries were not trained on", soft_wrap=True)
    reads = "with tags" if done.reads_tags else "without tags"
    console.out.print(
        f"[bold green]Trained[/] {escape(done.path)}: pairs {reads}; model card, ONNX and figures.jsonl in it"
    )
    console.out.print(f'  scoring.model = "{escape(done.path)}"', soft_wrap=True)


def _print_data(line: Line, data: dict[str, Any]) -> None:
    counts = data["counts"]
    if line["parameters_trained"] < line["parameters"]:
        share = f"{line['parameters_trained']:,} of {line['parameters']:,} parameters"
        console.out.print(
            f"{escape(line['stage'])}: trained {share}, as adapters that are merged into the model",
            soft_wrap=True,
        )
    runs = ", ".join(run["run_id"] for run in data["runs"])
    held = f"{counts['groups']:,} positives, {counts['negatives']:,} negatives of {runs}"
    console.out.print(f"{escape(line['stage'])}: {held}", soft_wrap=True)
    found = {
        "of queries that a dev set measures": counts.get("groups_held_out", 0),
        "that a newer run has too": counts.get("groups_known", 0),
        "without negatives": counts.get("groups_without_negatives", 0),
    }
    told = [f"{count:,} positives {said}" for said, count in found.items() if count]
    if counts.get("negatives_left_out"):
        told.append(f"{counts['negatives_left_out']:,} negatives beyond the number asked for")
    if line["unseen"]:
        told.append(f"{line['unseen']:,} examples that were never drawn")
    if "mined" in data:
        console.out.print(f"  mined again: {escape(describe(data['mined']))}", soft_wrap=True)
    if told:
        console.out.print(f"  [yellow]left out[/] {', '.join(told)}", soft_wrap=True)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
