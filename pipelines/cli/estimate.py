"""`nightrank nightly --dry-run`: what a night would do, as a small table."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.console import printable
from rerank_core.config.night import Config, require

if TYPE_CHECKING:
    from pipelines.nightly.cost import Plan
    from pipelines.nightly.estimate import Estimate
    from pipelines.plan.preview import Again


def show_again(
    night: Config,
    run_date: datetime.date,
    beam_flags: Sequence[str],
    *,
    set_latest: bool,
    from_step: str,
    only: str,
    quiet: bool,
    as_json: bool,
) -> bool:
    """Print what a night whose run is there would do; False: it would be reranked."""
    from pipelines.plan.preview import preview

    require(night, "output.path")
    again = preview(
        night,
        run_date=run_date,
        beam_flags=beam_flags,
        set_latest=set_latest,
        from_step=from_step,
        only=only,
    )
    if again and as_json:
        steps = [step._asdict() for step in again.steps]
        typer.echo(json.dumps(dataclasses.asdict(again) | {"steps": steps}, ensure_ascii=False))
    elif again and not quiet:
        _print_again(again, compared=not (from_step or only))
    return again is not None


def _print_again(again: Again, *, compared: bool) -> None:
    """Print it; `compared`: its inputs were, which those of steps that are named are not."""
    what = "is held back" if again.held else "was published before"
    if compared:
        what += ", and would be again, from the same inputs" if again.held else ", from the same inputs"
    console.out.print(
        f"\n[bold]Night of {again.run_date}[/] would not be reranked: run {again.run_id} {what}",
        soft_wrap=True,
    )
    for step in again.steps:
        colour = {"be done": "green", "fail": "red"}.get(step.would, "dim")
        console.out.print(
            f"[{colour}]{step.name:<13}[/]would {step.would}  {printable(step.why)}", soft_wrap=True
        )
    console.out.print("Nothing was written.")


def show_estimate(
    night: Config,
    run_date: datetime.date,
    beam_flags: Sequence[str],
    *,
    finish_by: datetime.datetime | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Estimate a night, and print what it would do."""
    from pipelines.nightly.cost import plans
    from pipelines.nightly.estimate import estimate

    found = estimate(night, run_date=run_date, beam_flags=beam_flags, finish_by=finish_by)
    planned = plans(found, night)
    if as_json:
        as_dict = dataclasses.asdict(found) | {"plans": [plan._asdict() for plan in planned]}
        typer.echo(json.dumps(as_dict, ensure_ascii=False))
    elif not quiet:
        print_estimate(found, planned)


def print_estimate(found: Estimate, planned: Sequence[Plan] = ()) -> None:
    """Print an estimate, and what larger nights would take."""
    console.out.print(f"\n[bold]Night of {found.run_date}[/] would be run {found.run_id}\n", soft_wrap=True)
    for line in _lines(found):
        console.out.print(line, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stage")
    table.add_column("seconds, all workers", justify="right")
    for stage, seconds in found.stages.items():
        table.add_row(stage, f"{seconds:,.1f}")
    console.out.print("", table, "")
    if planned:
        console.out.print(_plans(planned), "")
    for note in found.notes:
        console.out.print(f"[yellow]note[/] {printable(note)}", soft_wrap=True)
    console.out.print("Nothing was written.")


def _plans(planned: Sequence[Plan]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("a night of pairs")
    for plan in planned:
        table.add_column(f"{plan.pairs:,}", justify="right")
    table.add_row("workers", *(f"{plan.workers:,}" for plan in planned))
    table.add_row("hours", *(f"{plan.hours:,.2f}" for plan in planned))
    for name in ("shuffled", "written", "read"):
        table.add_row(name, *(_bytes(getattr(plan, name)) for plan in planned))
    table.add_row("requests to the store", *(f"{plan.requests:,.0f}" for plan in planned))
    table.add_row("cost of these, $", *(f"{plan.store:,.2f}" for plan in planned))
    if any(plan.machines is not None for plan in planned):
        table.add_row("cost of machines", *(f"{plan.machines or 0:,.2f}" for plan in planned))
    return table


def _bytes(amount: float) -> str:
    unit = next(unit for unit in (1e12, 1e9, 1e6) if amount >= unit or unit == 1e6)
    return f"{amount / unit:,.1f} {'TB' if unit == 1e12 else 'GB' if unit == 1e9 else 'MB'}"


def _lines(found: Estimate) -> Iterator[str]:
    yield f"events   {found.events:>11,} read"
    without = f", {found.without_candidates:,} of them without candidates" if found.without_candidates else ""
    yield f"queries  {found.queries:>11,}{without}"
    of = f"by a sample of {found.sampled:,} queries"
    yield f"pairs    {found.pairs:>11,} ± {found.pairs_error:,}, {of}"
    reused = (
        f"reused from run {found.previous_run_id}" if found.previous_run_id else "reused, as no run can be"
    )
    yield f"         {found.reused:>11,} {reused}"
    yield f"         {found.fresh:>11,} to score"
    speed = f"at the speed of run {found.speed_of}" if found.speed_of else "by the speed of the sample"
    yield f"time     {_duration(found.seconds):>11} {speed}; from now until {found.finished_at}"
    if found.finish_by:
        kept = (
            "[green]in time[/]"
            if found.in_time
            else "[red]not all in time[/]: the rest keeps its earlier lists"
        )
        yield f"deadline {found.finish_by:>11}: {kept}"
    if found.cost is not None:
        yield f"cost     {found.cost:>11,.2f}"
    if not found.job.local:
        flags = ", ".join(f"{name}={value}" for name, value in found.job.options.items())
        yield printable(f"runner   {found.job.runner}: {flags}")
        yield f"graph    {len(found.job.stages):>11,} stages, {found.job.graph_bytes:,} bytes"
    for hints in {tuple(stage.hints.items()) for stage in found.job.stages if stage.hints}:
        named = ", ".join(stage.name for stage in found.job.stages if tuple(stage.hints.items()) == hints)
        yield printable(
            f"workers  {', '.join(f'{name}={value}' for name, value in hints)}: for {named} alone"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
