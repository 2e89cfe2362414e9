"""`nightrank nightly`: runs one night, shows its progress and a summary."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Iterator
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

from pipelines.cli.options import Json, Quiet
from schemas.manifest import Manifest

if TYPE_CHECKING:
    from pipelines.nightly.progress import Progress as NightProgress
from pipelines.cli import console
from pipelines.cli.console import file_size, printable
from pipelines.cli.options import day_or_yesterday, load_night

BEAM_HELP = (
    "Flags for Apache Beam, after `--`: e.g. -- --direct_num_workers=2 --direct_running_mode=multi_processing, "
    "or -- --runner=DataflowRunner ..."
)


def nightly(
    config: Annotated[Path, typer.Option("--config", help="The night's TOML; see examples/nightly.toml.")],
    run_date: Annotated[
        datetime.datetime | None,
        typer.Option(
            "--run-date", formats=["%Y-%m-%d"], help="Last day of the log's window; default: yesterday (UTC)."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    beam_flags: Annotated[list[str] | None, typer.Argument(metavar="[-- BEAM FLAGS]", help=BEAM_HELP)] = None,
) -> None:
    """Run one night: rerank the log's queries, mine hard negatives, publish both."""
    day = day_or_yesterday(run_date)
    from pipelines.nightly.run import run

    night = load_night(config)
    with night_progress(show=not (quiet or as_json)) as progress:
        manifest = run(night, run_date=day, beam_flags=beam_flags or (), show=progress)
    if as_json:
        typer.echo(manifest_json(manifest))
    elif not quiet:
        print_night(manifest, night.output.path)


STAGE_ORDER = (
    "ReadQueryLog",
    "FetchCandidates",
    "TagFeatures",
    "WritePassageTags",
    "ReuseScores",
    "PruneCandidates",
    "ScoreCandidates",
    "RankCandidates",
    "FindEvidence",
    "WriteReranked",
    "MineHardNegatives",
    "WriteHardNegatives",
)
RECORDS = {
    "ReadQueryLog": "events -> queries",
    "FetchCandidates": "queries -> pairs",
    "WritePassageTags": "texts -> rows",
    "FindEvidence": "units",
    "MineHardNegatives": "pairs -> negatives",
    "WriteHardNegatives": "negatives -> rows",
    "WriteReranked": "pairs -> rows",
}


@contextmanager
def night_progress(*, show: bool) -> Iterator[Callable[[NightProgress], None]]:
    """Give a callback that draws a night's progress, or logs it every ten seconds."""
    started = told = time.monotonic()
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
            nonlocal told
            now = time.monotonic()
            rate = progress.scored / max(1e-9, now - started)
            bar.update(task, completed=progress.share, scored=f"{progress.scored:,} pairs, {rate:,.0f}/s")
            if show and not console.err.is_terminal and now - told > console.LOG_EVERY_SECONDS:
                told = now
                left = (
                    f", about {(now - started) * (1 / progress.share - 1):.0f} s left"
                    if progress.share
                    else ""
                )
                done = f"{100 * progress.share:.0f} %, {progress.scored:,} pairs scored, {rate:.0f} pairs/s"
                console.logger.info("reranking: %s%s", done, left)

        yield draw


def manifest_json(manifest: Manifest) -> str:
    """A run's manifest on one line."""
    return json.dumps(dataclasses.asdict(manifest), sort_keys=True, ensure_ascii=False)


def print_night(manifest: Manifest, output: str) -> None:
    """The summary of a published night."""
    window = f"{manifest.window[0][:10]} to {manifest.run_date}" if manifest.window else "the whole log"
    console.out.print(
        f"\n[bold]Night of {manifest.run_date}[/]  run {manifest.run_id}, log of {window}\n", soft_wrap=True
    )
    console.out.print(_stage_table(manifest), "")
    if manifest.metrics:
        console.out.print(_metric_table(manifest), "")
    _print_accounts(manifest)
    console.out.print("\n[bold]Published[/] to " + printable(output), soft_wrap=True)
    for name, info in manifest.tables.items():
        console.out.print(
            f"  {name:<15}{info.rows:>9,} rows {file_size(info.bytes):>9}  {printable(info.path)}/",
            soft_wrap=True,
        )
    console.out.print(f"  latest.json names run {manifest.run_id}")


def _stage_table(manifest: Manifest) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("stage", "records", "in", "out", "rejected", "seconds"):
        # A number is never cut: the records' names give way.
        left, wrap = name in ("stage", "records"), name == "records"
        table.add_column(name, justify="left" if left else "right", no_wrap=not wrap)
    for name in STAGE_ORDER:
        tally = manifest.stages.get(name)
        if tally is None:
            continue
        rejected = int(tally.get("rejected", 0))
        table.add_row(
            name,
            RECORDS.get(name, "pairs") + _note(name, tally),
            f"{int(tally.get('in', 0)):,}",
            f"{int(tally.get('out', 0)):,}",
            f"[yellow]{rejected:,}[/]" if rejected else "0",
            f"{tally['seconds']:.2f}" if "seconds" in tally else "",
        )
    return table


def _note(stage: str, tally: dict[str, float]) -> str:
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
    for name in ("ranking quality", "BM25", "reranked", "change"):
        table.add_column(name, justify="left" if name == "ranking quality" else "right")
    for level, values in manifest.metrics.items():
        table.add_section()
        table.add_row(f"[bold]{level}[/] ({int(values['queries']):,} judged queries)", "", "", "")
        for name in (key.removeprefix("before ") for key in values if key.startswith("before ")):
            before, after = 100 * values[f"before {name}"], 100 * values[f"after {name}"]
            colour = "green" if after >= before else "red"
            table.add_row(f"  {name}", f"{before:.1f}", f"{after:.1f}", f"[{colour}]{after - before:+.1f}[/]")
    return table


def _print_accounts(manifest: Manifest) -> None:
    for unit in ("events", "queries", "pairs"):
        counts: dict[str, int] = getattr(manifest.balance, unit)
        shown = {what: count for what, count in counts.items() if what != "read" and count}
        parts = " + ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in shown.items()) or "0"
        console.out.print(f"{unit:<8}{counts['read']:>9,} read = {parts}")
    for reason, count in sorted(manifest.rejected.items()):
        console.out.print(f"[yellow]rejected[/] {count:,} {reason}")
    if masked := int(manifest.stages["ReadQueryLog"].get("events_masked", 0)):
        console.out.print(
            f"[yellow]masked[/] an e-mail address, phone, card or account number in {masked:,} events"
        )
    truncated = manifest.degraded.get("truncated_pairs", 0)
    if truncated:
        limit = manifest.config["scoring"]["max_length"]
        console.out.print(
            f"[yellow]truncated[/] {truncated:,} pairs hold more than {limit} tokens; their column says how many"
        )
    if manifest.places:
        _print_places(manifest)
    if manifest.fusion:
        weights = ", ".join(f"{name} {weight:+.2g}" for name, weight in manifest.fusion["weights"].items())
        console.out.print(f"[bold]fusion[/] ranks by {weights}", soft_wrap=True)
    if manifest.cascade:
        _print_cascade(manifest.cascade)
    if halved := manifest.degraded.get("memory_halvings", 0):
        console.out.print(
            f"[yellow]memory[/] fell short {halved:,} times, and batches were halved; lower scoring.max_tokens"
        )
    for what, text in manifest.degraded.items():
        if isinstance(text, str):
            console.out.print(f"[yellow]{what}[/] {printable(text)}", soft_wrap=True)
    pairs = manifest.balance.pairs
    rate = (pairs["published"] + pairs["reused"]) / max(1e-9, manifest.seconds)
    console.out.print(f"{manifest.seconds:.1f} s in all, {rate:,.0f} pairs a second, reused ones counted")


def _print_places(manifest: Manifest) -> None:
    """How likely each place of a result list is looked at, and what was kept out of that estimate."""
    looked_at = " ".join(f"{place['examined']:.2f}" for place in (manifest.places or [])[:10])
    console.out.print(f"[bold]clicks[/] corrected for their places, looked at: {looked_at}")
    if programs := int(manifest.stages["ReadQueryLog"].get("events_clicking_all", 0)):
        console.out.print(
            f"[yellow]left out[/] of that: {programs:,} events that click nearly all that is shown"
        )


def _print_cascade(cascade: dict[str, Any]) -> None:
    """What the cascade costs; its sample says so, which was scored in full."""
    lost, error, bound = (100 * cascade[name] for name in ("loss", "error", "max_loss"))
    over = "[red]" if lost > bound else "[green]"
    console.out.print(
        f"[bold]cascade[/] costs {over}{lost:.2f}[/] ± {error:.2f} points of the model's nDCG@10 (bound {bound:g}), "
        f"by {cascade['queries']:,} queries scored in full"
    )
