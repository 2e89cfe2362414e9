"""`nightrank diff`: two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.console import cut
from pipelines.cli.options import Json, Output, not_empty
from schemas.manifest import Manifest

if TYPE_CHECKING:
    from pipelines.evaluate.two_runs import Difference


def diff(
    output: Output,
    one: Annotated[
        str, typer.Argument(metavar="RUN_ID", help="The earlier run, published or held.", callback=not_empty)
    ],
    other: Annotated[str, typer.Argument(metavar="RUN_ID", help="The later one.", callback=not_empty)],
    top: Annotated[int, typer.Option("--top", min=0, help="How many of the queries that moved most.")] = 10,
    as_json: Json = False,
) -> None:
    """Compare two runs: configuration, models, counts, measures, and the lists of the queries that both have."""
    from pipelines.evaluate.two_runs import compare_runs

    found = compare_runs(output, _open(output, one), _open(output, other), top=top)
    if as_json:
        moved = [query._asdict() for query in found.moved]
        typer.echo(json.dumps(found._asdict() | {"moved": moved}, ensure_ascii=False))
    else:
        print_difference(found)


def _open(output: str, run_id: str) -> Manifest:
    from pipelines.storage.held import find_held
    from pipelines.storage.runs import find_run

    return find_held(output, run_id) or find_run(output, run_id)


def print_difference(found: Difference) -> None:
    """Print what differs between two runs; of counts and measures those that do."""
    console.out.print(f"[bold]{cut(found.run_ids[0], 60)}[/] -> [bold]{cut(found.run_ids[1], 60)}[/]")
    texts = {
        name: tuple(_text(value) for value in pair) for name, pair in (found.config | found.models).items()
    }
    numbers: dict[str, Mapping[str, tuple[float | None, ...]]] = {
        "counts": {name: pair for name, pair in found.counts.items() if pair[0] != pair[1]},
        "rows of tables": {name: pair for name, pair in found.tables.items() if pair[0] != pair[1]},
        "measures": {name: pair for name, pair in found.measures.items() if pair[0] != pair[1]},
    }
    _print_pairs("configuration and models", texts)
    for title, pairs in numbers.items():
        _print_pairs(title, {name: tuple(map(_number, pair)) for name, pair in pairs.items()})
    queries = found.queries
    console.out.print(
        f"\n[bold]queries[/] {queries['common']:,} in both, {queries['added']:,} added, "
        f"{queries['removed']:,} removed; {queries['unchanged']:,} have the same first ten"
    )
    if found.overlap_at_10 is not None:
        tau = "" if found.rank_correlation is None else f", Kendall's tau {found.rank_correlation:.3f}"
        console.out.print(f"[bold]lists[/]   mean overlap at 10 {found.overlap_at_10:.3f}{tau}")
    for query in found.moved:
        tau = "" if query.rank_correlation is None else f", tau {query.rank_correlation:.2f}"
        console.out.print(f"\n{cut(query.query, 60)}  [dim]overlap {query.overlap_at_10:.2f}{tau}[/]")
        for sign, passages in (("-", query.before), ("+", query.after)):
            console.out.print(f"  {sign} {cut(', '.join(passages[:5]), 74)}")


def _print_pairs(title: str, pairs: Mapping[str, tuple[str, ...]]) -> None:
    if not pairs:
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(title, overflow="fold")
    for name in ("before", "after"):
        table.add_column(name, overflow="fold")
    for name, pair in pairs.items():
        table.add_row(cut(name, 60), *pair)
    console.out.print("", table)


def _text(value: Any) -> str:
    return "-" if value is None else cut(value if isinstance(value, str) else json.dumps(value), 60)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
