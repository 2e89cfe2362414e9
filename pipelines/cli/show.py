"""`nightrank show`: a query's list before and after, with scores, tags and evidence."""

from __future__ import annotations

import json
from typing import Annotated, Any, NamedTuple

import typer
from rich import box
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.console import cut
from pipelines.cli.options import OUTPUT_HELP, AnyRunId, Json, not_empty


class QueryRows(NamedTuple):
    """One query's published rows, best first."""

    query: str
    run_id: str
    run_date: str
    rows: list[dict[str, Any]]
    held: bool = False  # not published


def show(
    query: Annotated[
        str, typer.Argument(help="The query, as typed; case and closing punctuation do not matter.")
    ],
    run: Annotated[str, typer.Option("--run", help=OUTPUT_HELP, callback=not_empty)],
    run_id: AnyRunId = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many rows to show.")] = 10,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Show the chain behind HOP (query -> entity -> passage), and the evidence."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a query's list before and after, with scores and tags."""
    result = read_query(run, query, run_id=run_id or "")
    if as_json:
        record = {
            "query": result.query,
            "run_id": result.run_id,
            "held": result.held,
            "rows": result.rows[:top],
        }
        typer.echo(json.dumps(record, ensure_ascii=False))
    else:
        print_query(result, top=top, explain=explain)


def read_query(output: str, query: str, *, run_id: str = "") -> QueryRows:
    """Rows of `reranked` for one query, by its text as a user would type it.

    Args:
        run_id: of a run, published or held; "" is the one that is served.

    Raises:
        ManifestError: nothing was published there, no such run, or it is damaged.
        QueryNotFound: the run does not have the query; the message names the nearest ones.
    """
    from nightrank import read
    from nightrank.read.files import Files
    from nightrank.read.reader import Reader
    from nightrank.read.run import OpenRun
    from pipelines.storage.held import find_held

    held = find_held(output, run_id) if run_id else None
    if held:
        opened = Reader(files := Files(output), OpenRun(files, held), check_seconds=None)
    else:
        opened = read.open(output, run_id=run_id)
    with opened as reader:
        try:
            rows = reader.table(query).to_pylist()
        except read.QueryNotFound as error:
            near = ", ".join(repr(other.query) for other in reader.nearest(query))
            raise read.QueryNotFound(f"{error}; the nearest are {near}" if near else str(error)) from None
        return QueryRows(rows[0]["query"], reader.run.run_id, reader.run.run_date, rows, held is not None)


def print_query(result: QueryRows, *, top: int, explain: bool = False) -> None:
    """Print a query's list before and after; with `explain` also the chain behind each HOP, and the evidence."""
    kept = f", list of {since}" if (since := result.rows[0].get("stale_since")) else ""
    held = ", [yellow]held back[/]" if result.held else ""
    console.out.print(
        f"[bold]{cut(result.query, 200)}[/]  run {result.run_id}, night of {result.run_date}{kept}{held}"
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("rank", "before", "score", "BM25", "passage", "tags"):
        table.add_column(name, justify="left" if name in ("passage", "tags") else "right")
    for row in result.rows[:top]:
        table.add_row(*_cells(row))
    console.out.print(table)
    if explain:
        for row in result.rows[:top]:
            _print_explanation(row)
    if len(result.rows) > top:
        console.out.print(f"[dim]{len(result.rows) - top} more; --top {len(result.rows)} shows all[/]")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    moved = row["rank_before"] - row["rank"]
    arrow = f"[green]▲{moved}[/]" if moved > 0 else f"[red]▼{-moved}[/]" if moved < 0 else "="
    score = "pruned" if row["score"] is None else f"{row['score']:.3f}"
    passage, text = cut(row["passage_id"], 60), row["title"] or row["text"]
    if text:
        passage = f"{cut(text, 60)} [dim]{passage}[/]"
    before, bm25 = f"{row['rank_before']} {arrow}", f"{row['bm25_score']:.1f}"
    return str(row["rank"]), before, score, bm25, passage, cut(_tags(row), 200)


def _print_explanation(row: dict[str, Any]) -> None:
    """Print the chain from the query to the passage, and its evidence sentences."""
    console.out.print(f"\n[bold]{row['rank']}[/] {cut(row['title'] or row['passage_id'], 100)}")
    if row["hop"] is None:
        console.out.print("  no tags in this run")
    elif not row["hop_chain"]:
        console.out.print("  HOP -1: no chain of shared entities leads here")
    else:
        steps = ["query", *row["hop_chain"], row["passage_id"]]
        console.out.print(f"  HOP {row['hop']}: {cut(' -> '.join(steps), 500)}")
    if row["evidence"]:
        console.out.print(f"  [italic]{cut(row['evidence'], 500)}[/] [dim]{row['evidence_score']:.3f}[/]")


def _tags(row: dict[str, object]) -> str:
    from rerank_core.features.render import render_tags
    from schemas.tags import Tags

    return render_tags(Tags.from_row(row))
