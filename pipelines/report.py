"""What a person sees on the terminal: progress while a night runs, a summary when it is done, a query's list.

On a terminal, bars with an estimate of the time left; anywhere else, plain log lines. Results go to stdout,
everything else to stderr.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
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

from schemas.manifest import Manifest

if TYPE_CHECKING:
    from pipelines.progress import Progress as NightProgress
    from pipelines.published import QueryList
    from pipelines.sources.bm25_index import IndexReport

logger = logging.getLogger(__name__)
out, err = Console(highlight=False), Console(stderr=True, highlight=False)
LOG_EVERY_SECONDS = 10.0
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


def print_error(message: str) -> None:
    """An error that the user can act on."""
    err.print(f"[bold red]error:[/] {_plain(message)}", soft_wrap=True)


@contextmanager
def counter(what: str, *, unit: str, show: bool) -> Iterator[Callable[[int], None]]:
    """Give a callback that is told how many more were done; without a known end there is no estimate."""
    done = 0
    told = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not (show and err.is_terminal), transient=True) as bar:
        task = bar.add_task(f"{what} ({unit})", total=None)

        def count(more: int) -> None:
            nonlocal done, told
            done += more
            bar.update(task, completed=done)
            if show and not err.is_terminal and time.monotonic() - told > LOG_EVERY_SECONDS:
                told = time.monotonic()
                logger.info("%s: %s %s", what, f"{done:,}", unit)

        yield count


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
    with Progress(*columns, console=err, disable=not (show and err.is_terminal), transient=True) as bar:
        task = bar.add_task("Reranking", total=1.0, scored="")

        def draw(progress: NightProgress) -> None:
            nonlocal told
            now = time.monotonic()
            rate = progress.scored / max(1e-9, now - started)
            bar.update(task, completed=progress.share, scored=f"{progress.scored:,} pairs, {rate:,.0f}/s")
            if show and not err.is_terminal and now - told > LOG_EVERY_SECONDS:
                told = now
                left = (
                    f", about {(now - started) * (1 / progress.share - 1):.0f} s left"
                    if progress.share
                    else ""
                )
                done = f"{100 * progress.share:.0f} %, {progress.scored:,} pairs scored, {rate:.0f} pairs/s"
                logger.info("reranking: %s%s", done, left)

        yield draw


def print_index(report: IndexReport) -> None:
    """What an index holds now."""
    out.print(f"[bold green]Indexed[/] {report.documents:,} passages in {_plain(str(report.path))}")
    if report.rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(report.rejected.items()))
        out.print(
            f"[yellow]Rejected[/] {sum(report.rejected.values()):,}: {reasons}; see rejected.jsonl there"
        )


def manifest_json(manifest: Manifest) -> str:
    """A run's manifest on one line."""
    return json.dumps(dataclasses.asdict(manifest), sort_keys=True, ensure_ascii=False)


def print_night(manifest: Manifest, output: str) -> None:
    """The summary of a published night."""
    window = f"{manifest.window[0][:10]} to {manifest.run_date}" if manifest.window else "the whole log"
    out.print(
        f"\n[bold]Night of {manifest.run_date}[/]  run {manifest.run_id}, log of {window}\n", soft_wrap=True
    )
    out.print(_stage_table(manifest), "")
    if manifest.metrics:
        out.print(_metric_table(manifest), "")
    _print_accounts(manifest)
    out.print("\n[bold]Published[/] to " + _plain(output), soft_wrap=True)
    for name, info in manifest.tables.items():
        out.print(
            f"  {name:<15}{info.rows:>9,} rows {_size(info.bytes):>9}  {_plain(info.path)}/", soft_wrap=True
        )
    out.print(f"  latest.json names run {manifest.run_id}")


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
        out.print(f"{unit:<8}{counts['read']:>9,} read = {parts}")
    for reason, count in sorted(manifest.rejected.items()):
        out.print(f"[yellow]rejected[/] {count:,} {reason}")
    if masked := int(manifest.stages["ReadQueryLog"].get("events_masked", 0)):
        out.print(f"[yellow]masked[/] an e-mail address, phone, card or account number in {masked:,} events")
    truncated = manifest.degraded.get("truncated_pairs", 0)
    if truncated:
        limit = manifest.config["scoring"]["max_length"]
        out.print(
            f"[yellow]truncated[/] {truncated:,} pairs hold more than {limit} tokens; their column says how many"
        )
    if manifest.places:
        _print_places(manifest)
    if manifest.fusion:
        weights = ", ".join(f"{name} {weight:+.2g}" for name, weight in manifest.fusion["weights"].items())
        out.print(f"[bold]fusion[/] ranks by {weights}", soft_wrap=True)
    if manifest.cascade:
        _print_cascade(manifest.cascade)
    if halved := manifest.degraded.get("memory_halvings", 0):
        out.print(
            f"[yellow]memory[/] fell short {halved:,} times, and batches were halved; lower scoring.max_tokens"
        )
    for what, text in manifest.degraded.items():
        if isinstance(text, str):
            out.print(f"[yellow]{what}[/] {_plain(text)}", soft_wrap=True)
    pairs = manifest.balance.pairs
    rate = (pairs["published"] + pairs["reused"]) / max(1e-9, manifest.seconds)
    out.print(f"{manifest.seconds:.1f} s in all, {rate:,.0f} pairs a second, reused ones counted")


def _print_places(manifest: Manifest) -> None:
    """How likely each place of a result list is looked at, and what was kept out of that estimate."""
    looked_at = " ".join(f"{place['examined']:.2f}" for place in (manifest.places or [])[:10])
    out.print(f"[bold]clicks[/] corrected for their places, looked at: {looked_at}")
    if programs := int(manifest.stages["ReadQueryLog"].get("events_clicking_all", 0)):
        out.print(f"[yellow]left out[/] of that: {programs:,} events that click nearly all that is shown")


def _print_cascade(cascade: dict[str, Any]) -> None:
    """What the cascade costs; its sample says so, which was scored in full."""
    lost, error, bound = (100 * cascade[name] for name in ("loss", "error", "max_loss"))
    over = "[red]" if lost > bound else "[green]"
    out.print(
        f"[bold]cascade[/] costs {over}{lost:.2f}[/] ± {error:.2f} points of the model's nDCG@10 (bound {bound:g}), "
        f"by {cascade['queries']:,} queries scored in full"
    )


def _plain(text: str) -> str:
    """Text of others as it stands: no markup of ours in it, and no control sequence of the terminal."""
    return escape("".join(c for c in text if c.isprintable() or c == "\n"))


def print_query(found: QueryList, *, top: int, explain: bool = False) -> None:
    """One query's list, before and after; with `explain` the chain behind each HOP, and the evidence."""
    out.print(f"[bold]{_plain(found.query)}[/]  run {found.run_id}, night of {found.run_date}")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("rank", "before", "score", "BM25", "passage", "tags"):
        table.add_column(name, justify="left" if name in ("passage", "tags") else "right")
    for row in found.rows[:top]:
        moved = row["rank_before"] - row["rank"]
        arrow = f"[green]▲{moved}[/]" if moved > 0 else f"[red]▼{-moved}[/]" if moved < 0 else "="
        text = row["title"] or (row["text"] or "")[:60]
        passage = f"{_plain(text)} [dim]{_plain(row['passage_id'])}[/]" if text else _plain(row["passage_id"])
        score = "pruned" if row["score"] is None else f"{row['score']:.3f}"
        table.add_row(str(row["rank"]), f"{row['rank_before']} {arrow}", score,
                      f"{row['bm25_score']:.1f}", passage, _plain(_tags(row)))  # fmt: skip
    out.print(table)
    if explain:
        for row in found.rows[:top]:
            _print_reasons(row)
    if len(found.rows) > top:
        out.print(f"[dim]{len(found.rows) - top} more; --top {len(found.rows)} shows all[/]")


def _print_reasons(row: dict[str, Any]) -> None:
    """The chain from the query to the passage, and the sentences that speak for it."""
    out.print(f"\n[bold]{row['rank']}[/] {_plain(row['title'] or row['passage_id'])}")
    if row["hop"] is None:
        out.print("  no tags in this run")
    elif not row["hop_chain"]:
        out.print("  query -> nothing: no chain of shared entities leads here")
    else:
        steps = ["query", *row["hop_chain"], row["passage_id"]]
        out.print(f"  HOP {row['hop']}: {_plain(' -> '.join(steps))}")
    if row["evidence"]:
        out.print(f"  [italic]{_plain(row['evidence'])}[/] [dim]{row['evidence_score']:.3f}[/]")


def _tags(row: dict[str, object]) -> str:
    from rerank_core.features.render import render_tags
    from schemas.records import Tags

    if row["hop"] is None:
        return ""
    return render_tags(Tags(*(row[name] for name in Tags._fields)))  # type: ignore[arg-type]


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
