"""The summary of a published night: its stages, measures, balance and what a reader of the results should know."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from rich import box
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.console import file_size, printable
from schemas.manifest import Manifest

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
