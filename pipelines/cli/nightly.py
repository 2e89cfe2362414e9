"""`nightrank nightly`: runs one night, shows its progress and a summary."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipelines.cli import console, leaving
from pipelines.cli.console import printable
from pipelines.cli.estimate import show_again, show_estimate
from pipelines.cli.night_summary import manifest_json, print_night
from pipelines.cli.options import Json, Quiet, RunDate, SetLatest, day_or_yesterday, load_night, not_empty
from pipelines.cli.profile import profiled
from pipelines.plan.clock import next_time
from rerank_core.config.night import Config
from rerank_core.config.operation import check_clock
from rerank_core.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.nightly.progress import Progress as NightProgress
    from pipelines.plan.run import Outcome

BEAM_HELP = (
    "Flags for Apache Beam, after `--`: e.g. -- --direct_num_workers=2 --direct_running_mode=multi_processing, "
    "or -- --runner=DataflowRunner ..."
)
FinishBy = Annotated[
    str | None,
    typer.Option(
        "--finish-by",
        metavar="HH:MM",
        help="When the lists must be published, in plan.time_zone; default: plan.finish_by.",
        show_default=False,
        callback=not_empty,
    ),
]
STEPS_HELP = "rerank, train, evaluate, promote, publish_back, clean_up or report"
FromStep = Annotated[
    str | None,
    typer.Option(
        "--from-step",
        metavar="STEP",
        help=f"Run this step and those after it, even if they were done: {STEPS_HELP}.",
        show_default=False,
        callback=not_empty,
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="STEP",
        help="Run this step alone, even if it was done, and write the report anew.",
        show_default=False,
        callback=not_empty,
    ),
]


def nightly(
    config: Annotated[Path, typer.Option("--config", help="The night's TOML; see examples/nightly.toml.")],
    run_date: RunDate = None,
    quiet: Quiet = False,
    as_json: Json = False,
    set_latest: SetLatest = False,
    finish_by: FinishBy = None,
    from_step: FromStep = None,
    only: Only = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check and estimate the night, or say what is left of one that is done; write nothing.",
        ),
    ] = False,
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            metavar="FILE",
            help="Write a trace of this machine's processes here: where the time goes, for https://ui.perfetto.dev.",
            show_default=False,
        ),
    ] = None,
    beam_flags: Annotated[list[str] | None, typer.Argument(metavar="[-- BEAM FLAGS]", help=BEAM_HELP)] = None,
) -> None:
    """Run one night: rerank the log's queries, mine hard negatives, publish both; then the other steps that are due."""
    started, day = datetime.datetime.now(datetime.UTC), day_or_yesterday(run_date)
    from pipelines.plan.run import message, run_plan

    night, shown = load_night(config), not (quiet or as_json)
    until = deadline(night, finish_by or "", started=started)
    if dry_run:
        if not show_again(
            night,
            day,
            beam_flags or (),
            set_latest=set_latest,
            from_step=from_step or "",
            only=only or "",
            quiet=quiet,
            as_json=as_json,
        ):
            show_estimate(night, day, beam_flags or (), finish_by=until, quiet=quiet, as_json=as_json)
        return
    with profiled(profile), night_progress(show=shown) as progress:
        outcome = run_plan(
            night,
            run_date=day,
            from_step=from_step or "",
            only=only or "",
            interrupted=leaving.interrupted,
            tell=lambda step: console.logger.info("%s begins", step) if shown else None,
            beam_flags=beam_flags or (),
            show=progress,
            set_latest=set_latest,
            finish_by=until,
        )
    if as_json and outcome.manifest:
        typer.echo(manifest_json(outcome.manifest))
    elif shown:
        print_outcome(outcome, night.output.path, only=only or "")
    for line in outcome.unsent:
        console.print_error(line)
    for failure in outcome.failures[1:]:
        console.print_error(message(failure))
    if outcome.failures:
        raise outcome.failures[0]


def deadline(night: Config, finish_by: str, *, started: datetime.datetime) -> datetime.datetime | None:
    """When the night must be finished: the next time that clocks show --finish-by, or plan.finish_by.

    Raises:
        ConfigError: it is no time of day.
    """
    clock = finish_by or night.plan.finish_by
    try:
        return next_time(check_clock(clock), night.plan.time_zone, now=started) if clock else None
    except ValueError:
        raise ConfigError(f"--finish-by {clock!r} is no time of day; write HH:MM, such as 06:00") from None


def print_outcome(outcome: Outcome, output: str, *, only: str = "") -> None:
    """Print the summary of the night, and a line for each further step that was run, failed, or was `only` wanted."""
    rerank, manifest = outcome.record.step("rerank"), outcome.manifest
    if manifest and rerank and rerank.state == "done":
        if "rerank" in outcome.ran:
            print_night(manifest, output)
        else:
            console.out.print(
                f"Night of {manifest.run_date}: run {manifest.run_id} was published before, from the same inputs; "
                "--from-step rerank runs it again",
                soft_wrap=True,
            )
    for step in outcome.record.steps:
        if step.name != "rerank" and (step.name in outcome.ran or step.name == only):
            colour = {"done": "green", "not_due": "yellow"}.get(step.state, "red")
            text = printable(step.reason or result_text(step.result))
            console.out.print(
                f"[{colour}]{step.name:<13}[/]{step.state.replace('_', ' ')}  {text}", soft_wrap=True
            )


def result_text(result: Mapping[str, Any]) -> str:
    """A step's result in a line: names, numbers and reasons; the measures and checks are for the report."""
    parts = []
    for name, value in result.items():
        if isinstance(value, bool):
            parts.append(name if value else f"not {name}")
        elif isinstance(value, list) and value and not any(isinstance(item, dict) for item in value):
            parts.append(f"{name} {', '.join(map(str, value))}")
        elif isinstance(value, str | int | float) and value != "":
            parts.append(f"{name} {value}")
    return ", ".join(parts) or "nothing to do"


@contextmanager
def night_progress(*, show: bool) -> Iterator[Callable[[NightProgress], None]]:
    """Yield a callback that draws a night's progress on a terminal, and elsewhere logs it every ten seconds."""
    started = logged = time.monotonic()
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[scored]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console.err, disable=not (show and console.err.is_terminal), transient=True
    ) as bar:
        task = bar.add_task("Reranking", total=1.0, scored="")

        def draw(progress: NightProgress) -> None:
            nonlocal logged
            now = time.monotonic()
            rate = progress.scored / max(1e-9, now - started)
            bar.update(task, completed=progress.share, scored=f"{progress.scored:,} pairs, {rate:,.0f}/s")
            if show and not console.err.is_terminal and now - logged > console.LOG_EVERY_SECONDS:
                logged = now
                done = f"{100 * progress.share:.0f} %, {progress.scored:,} pairs scored, {rate:.0f} pairs/s"
                left = (now - started) * (1 / progress.share - 1) if progress.share else 0
                console.logger.info("reranking: %s%s", done, f", about {left:.0f} s left" if left else "")

        yield draw
