"""`nightrank nightly`: runs one night, shows its progress and a summary."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipelines.cli import console, leaving
from pipelines.cli.console import file_size, printable
from pipelines.cli.estimate import show_estimate
from pipelines.cli.options import Json, Quiet, RunDate, day_or_yesterday, load_night, not_empty
from pipelines.plan.clock import next_time
from rerank_core.config.night import Config
from rerank_core.config.operation import check_clock
from rerank_core.errors import ConfigError
from schemas.manifest import Manifest

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
STEPS_HELP = "rerank, train, evaluate, promote, report, publish_back or clean_up"
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
        help="Run this step alone, even if it was done.",
        show_default=False,
        callback=not_empty,
    ),
]
RECORDS = {
    "ReadQueryLog": "events -> queries",
    "FetchCandidates": "queries -> pairs",
    "TagFeatures": "pairs",
    "WritePassageTags": "texts -> rows",
    "ReuseScores": "pairs",
    "PruneCandidates": "pairs",
    "ScoreCandidates": "pairs",
    "RankCandidates": "pairs",
    "FindEvidence": "units",
    "WriteReranked": "pairs -> rows",
    "MineHardNegatives": "pairs -> negatives",
    "WriteHardNegatives": "negatives -> rows",
    "CopyLists": "stale lists -> rows",
}
"""The stages in the order of the summary, and what each reads and writes."""


def nightly(
    config: Annotated[Path, typer.Option("--config", help="The night's TOML; see examples/nightly.toml.")],
    run_date: RunDate = None,
    quiet: Quiet = False,
    as_json: Json = False,
    set_latest: Annotated[
        bool,
        typer.Option(
            "--set-latest", help="Point latest.json at this run, even if it names one of a later date."
        ),
    ] = False,
    finish_by: FinishBy = None,
    from_step: FromStep = None,
    only: Only = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and estimate the reranking alone, and write nothing.")
    ] = False,
    beam_flags: Annotated[list[str] | None, typer.Argument(metavar="[-- BEAM FLAGS]", help=BEAM_HELP)] = None,
) -> None:
    """Run one night: rerank the log's queries, mine hard negatives, publish both; then the other steps that are due."""
    started, day = datetime.datetime.now(datetime.UTC), day_or_yesterday(run_date)
    from pipelines.plan.run import message, run_plan

    night, shown = load_night(config), not (quiet or as_json)
    until = deadline(night, finish_by or "", started=started)
    if dry_run:
        show_estimate(night, day, beam_flags or (), finish_by=until, quiet=quiet, as_json=as_json)
        return
    with night_progress(show=shown) as progress:
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


def manifest_json(manifest: Manifest) -> str:
    """A run's manifest on one line."""
    return json.dumps(dataclasses.asdict(manifest), sort_keys=True, ensure_ascii=False)


def print_night(manifest: Manifest, output: str) -> None:
    """Print the summary of a published night."""
    window = f"{manifest.window[0][:10]} to {manifest.run_date}" if manifest.window else "the whole log"
    title = f"\n[bold]Night of {manifest.run_date}[/]  run {manifest.run_id}, log of {window}\n"
    console.out.print(title, soft_wrap=True)
    console.out.print(_stage_table(manifest), "")
    if manifest.metrics:
        console.out.print(_metric_table(manifest), "")
    for line in (*_balance(manifest), *_notes(manifest)):
        console.out.print(line)
    for key, text in manifest.degraded.items():
        if isinstance(text, str):
            console.out.print(f"[yellow]{key}[/] {printable(text)}", soft_wrap=True)
    for line in _drift(manifest):
        console.out.print(line, soft_wrap=True)
    pairs = manifest.balance.pairs
    rate = (pairs["published"] + pairs["reused"]) / max(1e-9, manifest.seconds)
    console.out.print(f"{manifest.seconds:.1f} s in total, {rate:,.0f} pairs a second including reused ones")
    console.out.print(f"\n[bold]Published[/] to {printable(output)}", soft_wrap=True)
    for name, info in manifest.tables.items():
        size = f"{info.rows:>9,} rows {file_size(info.bytes):>9}"
        console.out.print(f"  {name:<15}{size}  {printable(info.path)}/", soft_wrap=True)
    console.out.print(f"  {pointer(manifest, output)}")


def pointer(manifest: Manifest, output: str) -> str:
    """What latest.json names after a night."""
    from pipelines.storage.runs import latest

    newest = latest(output)
    if newest is None or newest.run_id == manifest.run_id:
        return f"latest.json names run {manifest.run_id}"
    return f"latest.json still names run {newest.run_id} of {newest.run_date}, a later date; --set-latest moves it"


def _stage_table(manifest: Manifest) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("stage", "records", "in", "out", "rejected", "seconds"):
        # Numbers are never cut; the texts wrap instead.
        left, wrap = name in ("stage", "records"), name == "records"
        table.add_column(name, justify="left" if left else "right", no_wrap=not wrap)
    for name, records in RECORDS.items():
        tally = manifest.stages.get(name)
        if tally is None:
            continue
        rejected = int(tally.get("rejected", 0))
        table.add_row(
            name,
            records + _stage_note(name, tally),
            f"{int(tally.get('in', 0)):,}",
            f"{int(tally.get('out', 0)):,}",
            f"[yellow]{rejected:,}[/]" if rejected else "0",
            f"{tally['seconds']:.2f}" if "seconds" in tally else "",
        )
    return table


def _stage_note(stage: str, tally: dict[str, float]) -> str:
    if stage == "ScoreCandidates" and tally.get("in"):
        return f", [bold]{tally['in'] / max(1e-9, tally['seconds']):,.0f} a second[/]"
    if stage == "ReuseScores":
        return f", {int(tally.get('reused', 0)):,} reused"
    if stage == "PruneCandidates":
        return f", {int(tally['pruned']):,} pruned"
    if stage == "TagFeatures" and "passages" in tally:
        return f", {int(tally['passages_read']):,} texts read"
    if stage == "FindEvidence" and tally.get("in"):
        return f", {int(tally['inputs']):,} inputs scored"
    return ""


def _metric_table(manifest: Manifest) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("ranking quality", "BM25", "reranked", "change", "95 % interval"):
        table.add_column(name, justify="left" if name == "ranking quality" else "right")
    for level, values in manifest.metrics.items():
        table.add_section()
        table.add_row(f"[bold]{level}[/] ({int(values['queries']):,} judged queries)")
        for name in (key.removeprefix("after ") for key in values if key.startswith("after ")):
            table.add_row(f"  {name}", *_change(values, name))
    return table


def _change(values: dict[str, float], name: str) -> tuple[str, str, str, str]:
    """A measure before and after reranking in points, its change, and the ends of the change's interval, if known."""
    after = f"{100 * values[f'after {name}']:.1f}"
    if f"before {name}" not in values:
        return "", after, "", ""
    change = 100 * (values[f"after {name}"] - values[f"before {name}"])
    low, high = (values.get(f"gain {name} {end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
    coloured = f"[{'green' if change >= 0 else 'red'}]{change:+.1f}[/]"
    return f"{100 * values[f'before {name}']:.1f}", after, coloured, interval


def _balance(manifest: Manifest) -> Iterator[str]:
    """Where every record went."""
    for unit in ("events", "queries", "pairs"):
        counts: dict[str, int] = getattr(manifest.balance, unit)
        outcomes = [(outcome, count) for outcome, count in counts.items() if outcome != "read" and count]
        parts = " + ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in outcomes)
        yield f"{unit:<8}{counts['read']:>9,} read = {parts or '0'}"
    for reason, count in sorted(manifest.rejected.items()):
        yield f"[yellow]rejected[/] {count:,} {reason}"


def _drift(manifest: Manifest) -> Iterator[str]:
    """How the night compares with earlier ones, a line for each reason to look into it."""
    if not manifest.drift:
        return
    verdict, previous = manifest.drift["verdict"], manifest.drift["previous"]
    if previous and verdict == "ok":
        yield f"[bold]drift[/] ok: {len(manifest.drift['measures'])} measures against run {previous} and the week"
    for reason in manifest.drift["reasons"]:
        yield f"[yellow]drift: {verdict}[/] {printable(reason)}"
    for note in manifest.drift["notes"]:
        yield f"[bold]drift[/] {printable(note)}"


def _notes(manifest: Manifest) -> Iterator[str]:
    """What a reader of the results should know of this run."""
    log, degraded = manifest.stages["ReadQueryLog"], manifest.degraded
    if masked := int(log.get("events_masked", 0)):
        yield f"[yellow]masked[/] personal numbers, addresses or secrets in {masked:,} events"
    if truncated := degraded.get("truncated_pairs", 0):
        limit = manifest.config["scoring"]["max_length"]
        yield f"[yellow]truncated[/] {truncated:,} pairs hold more than {limit} tokens; see overflow_tokens"
    if manifest.places:
        shown = " ".join(f"{rank['examined']:.2f}" for rank in manifest.places[:10])
        yield f"[bold]clicks[/] corrected for position; propensities from rank 1: {shown}"
        if programs := int(log.get("events_clicking_all", 0)):
            yield f"[yellow]left out[/] of the propensities: {programs:,} events that click nearly all documents shown"
    if manifest.fusion:
        weights = ", ".join(f"{name} {weight:+.2g}" for name, weight in manifest.fusion["weights"].items())
        yield f"[bold]fusion[/] ranks by {weights}"
    if manifest.cascade:
        lost, error, bound = (100 * manifest.cascade[name] for name in ("loss", "error", "max_loss"))
        yield (
            f"[bold]cascade[/] costs [{'red' if lost > bound else 'green'}]{lost:.2f}[/] ± {error:.2f} points of the "
            f"model's nDCG@10 (bound {bound:g}), measured on {manifest.cascade['queries']:,} queries scored in full"
        )
    if halved := degraded.get("memory_halvings", 0):
        yield f"[yellow]memory[/] ran out {halved:,} times, and batches were halved; lower scoring.max_tokens"
