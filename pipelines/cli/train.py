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
from rerank_core.files import read_text
from rerank_core.training.dev_set import MEASURE
from rerank_core.training.remine import describe

if TYPE_CHECKING:
    from pipelines.train.run import Trained
    from rerank_core.training.metrics_log import Line


def train(
    config: Annotated[Path, typer.Option("--config", help="The training's TOML; see examples/train.toml.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume a killed training from its newest checkpoint.")
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            min=1,
            help="Rounds of training and of mining again with the new model; default: the TOML's.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Stop each stage after 20 steps, to try a configuration.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a cross-encoder from published runs, for scoring.model of the next night."""
    from pipelines.train import run
    from rerank_core.config.training import load_training_config

    show = not (quiet or as_json) and os.environ.get("RANK", "0") == "0"  # of several processes the first
    settings = load_training_config(config, **({"rounds": rounds} if rounds else {}))
    flags = [flag for flag, given in ((f"--rounds {rounds}", rounds), ("--quick", quick)) if given]
    with (
        console.counter("Reading and mining", unit="positives", show=show) as count,
        training_progress(show=show) as on_line,
    ):
        trained = run.train(
            settings,
            command=" ".join(["nightrank train --config", config.name, *flags]),
            toml=read_text(config),
            resume=resume,
            quick=quick,
            on_line=on_line,
            on_progress=count,
        )
    if trained and as_json:
        typer.echo(json.dumps(trained._asdict(), ensure_ascii=False))
    elif trained and not quiet:
        print_trained(trained)


@contextmanager
def training_progress(*, show: bool) -> Iterator[Callable[[Line], None]]:
    """Yield a callback for each new line of figures: it shows a bar per stage, and measures."""
    logged = time.monotonic()
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    on_terminal = console.err.is_terminal
    with Progress(*columns, console=console.err, disable=not (show and on_terminal), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def on_loss(line: Line) -> None:
            nonlocal logged
            stage, loss = line["stage"], f"loss {line['loss']:.4f}"
            if stage not in tasks:
                tasks[stage] = bar.add_task(f"Stage {stage}", total=line["steps"], loss="")
            bar.update(tasks[stage], completed=line["step"], loss=loss)
            if show and not on_terminal and time.monotonic() - logged > console.LOG_EVERY_SECONDS:
                logged = time.monotonic()
                console.logger.info("stage %s: step %s of %s, %s", stage, line["step"], line["steps"], loss)

        def on_line(line: Line) -> None:
            if line["kind"] == "loss":
                on_loss(line)
            elif show and line["kind"] == "mined":
                message = f"negatives of stage {line['stage']} mined again: {describe(line)}"
                console.err.print(escape(message), soft_wrap=True)
            elif show and line["kind"] == "dev":
                best = ", the best so far" if line["best"] else ""
                message = (
                    f"stage {line['stage']}, epoch {line['epoch']:g}: {MEASURE} {_percent(line[MEASURE])} on "
                    f"{line['dev']}{best}"
                )
                console.err.print(escape(message), soft_wrap=True)

        yield on_line


def print_trained(trained: Trained) -> None:
    """The stages with their figures, what was left out of their data, and how to use the model."""
    stages = [line for line in trained.lines if line["kind"] == "stage"]
    console.out.print(_stage_table(trained.lines, stages))
    rounds = [line for line in trained.lines if line["kind"] == "round"]
    if rounds:
        measured = ", ".join(_percent(line.get(MEASURE)) or "not measured" for line in rounds)
        console.out.print(
            f"{MEASURE} after each of {len(rounds)} rounds: {measured}; kept: round {trained.round}"
        )
    for line, data in zip(stages, trained.data, strict=True):
        _print_data(line, data)
    for dev_set in trained.dev_sets:
        console.out.print(f"dev: {escape(dev_set)}; their queries were not trained on", soft_wrap=True)
    reads = "with tags" if trained.reads_tags else "without tags"
    console.out.print(
        f"[bold green]Trained[/] {escape(trained.path)}: reads pairs {reads}; with model card, ONNX files and "
        "figures.jsonl",
        soft_wrap=True,
    )
    console.out.print(f'  scoring.model = "{escape(trained.path)}"', soft_wrap=True)


def _stage_table(lines: list[Line], stages: list[Line]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", no_wrap=True)
    for name in ("examples", "steps", "loss", MEASURE, "first set", "forgotten"):
        table.add_column(name, justify="right", no_wrap=True)
    before = next((line for line in lines if line["kind"] == "dev" and line["step"] == 0), None)
    if before:
        table.add_row("before", "", "", "", _percent(before[MEASURE]), "", "")
    for line in stages:
        losses = (line["loss_first"], line["loss_last"])
        table.add_row(
            line["stage"],
            f"{line['examples']:,}",
            f"{line['step']:,}",
            "" if losses[0] is None else f"{losses[0]:.3f} -> {losses[1]:.3f}",
            *(_percent(line.get(name)) for name in (MEASURE, "first_dev_now", "forgotten")),
        )
    return table


def _print_data(line: Line, data: dict[str, Any]) -> None:
    counts, stage = data["counts"], escape(line["stage"])
    if line["parameters_trained"] < line["parameters"]:
        share = f"{line['parameters_trained']:,} of {line['parameters']:,} parameters"
        console.out.print(f"{stage}: trained {share}, as adapters merged into the model", soft_wrap=True)
    runs = ", ".join(run["run_id"] for run in data["runs"])
    console.out.print(
        f"{stage}: {counts['groups']:,} positives, {counts['negatives']:,} negatives of {runs}",
        soft_wrap=True,
    )
    left_out = {
        "positives of queries that are in a dev set": counts.get("groups_held_out", 0),
        "positives that a newer run also has": counts.get("groups_known", 0),
        "positives without negatives": counts.get("groups_without_negatives", 0),
        "negatives that are copies of a positive": counts.get("negatives_copies", 0),
        "negatives beyond the configured number": counts.get("negatives_left_out", 0),
        "examples that were never drawn": line["unseen"],
    }
    if "mined" in data:
        console.out.print(f"  mined again: {escape(describe(data['mined']))}", soft_wrap=True)
    if any(left_out.values()):
        parts = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
        console.out.print(f"  [yellow]left out[/] {parts}", soft_wrap=True)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
