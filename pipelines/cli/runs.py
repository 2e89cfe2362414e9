"""`nightrank runs`: the runs of an output folder, a line each."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.console import printable
from pipelines.cli.options import Json, Output

if TYPE_CHECKING:
    from pipelines.storage.overview import RunRow

COLOURS = {"latest": "bold green", "held": "yellow", "rolled back": "yellow", "damaged": "red"}
DRIFT = {"warn": "yellow", "hold": "red"}


def runs(output: Output, as_json: Json = False) -> None:
    """List the published and held runs, the newest first."""
    from pipelines.storage.overview import list_runs
    from pipelines.storage.runs import check_output

    check_output(output)
    rows = list_runs(output)
    if as_json:
        typer.echo(json.dumps({"runs": [dataclasses.asdict(row) for row in rows]}, ensure_ascii=False))
    else:
        print_runs(rows)


def print_runs(rows: list[RunRow]) -> None:
    """Print the runs as a table of 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for name in ("run", "state", "queries", "pairs", "reuse", "nDCG@10", "drift", "time", "bytes"):
        left = name in ("run", "state", "drift")
        width = 10 if name == "state" else None  # "rolled back" takes two lines
        table.add_column(name, justify="left" if left else "right", no_wrap=width is None, min_width=width)
    for row in rows:
        table.add_row(*_cells(row))
    console.out.print(table)
    for row in rows:
        if row.problem:
            console.out.print(f"[red]damaged[/] {printable(row.problem)}", soft_wrap=True)
    for row in rows:
        if row.kept:
            console.out.print(f"[bold]kept[/] {row.run_id}: {printable(row.kept)}", soft_wrap=True)


def _cells(row: RunRow) -> tuple[str, ...]:
    colour = COLOURS.get(row.state, "")
    state = f"[{colour}]{row.state}[/]" if colour else row.state
    if row.problem:
        return row.run_id, state
    quality = "" if row.ndcg_at_10 is None else f"{100 * row.ndcg_at_10:.1f}"
    if quality and row.bm25_ndcg_at_10 is not None:
        gain = 100 * (row.ndcg_at_10 or 0) - 100 * row.bm25_ndcg_at_10
        quality += f"[{'green' if gain >= 0 else 'red'}]{gain:+.1f}[/]"
    drift = f"[{DRIFT[row.drift]}]{row.drift}[/]" if row.drift in DRIFT else row.drift or ""
    return (
        row.run_id,
        state,
        short(row.queries or 0),
        short(row.pairs or 0),
        f"{100 * row.reused / row.pairs:.0f}%" if row.reused and row.pairs else "0%",
        quality,
        drift,
        _time(row.seconds or 0),
        short(row.bytes or 0),
    )


def short(number: float) -> str:
    """A number in at most five characters, such as 987, 12.3k or 540M."""
    for sign in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.0f}{sign}" if number >= 99.95 or not sign else f"{number:.1f}{sign}"
        number /= 1000
    return f"{number:.0f}T"


def _time(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f}s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f}m"
    return f"{seconds / 3600:.1f}h" if seconds < 9.95 * 3600 else f"{seconds / 3600:.0f}h"
