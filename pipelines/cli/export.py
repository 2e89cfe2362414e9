"""`nightrank export`: a published run in the format of another tool."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from pipelines.cli import console
from pipelines.cli.console import cut
from pipelines.cli.options import Json, Output, Quiet, RunId, Split, not_empty

Format = Literal[
    "trec", "beir", "rankllm", "flagembedding", "st-triplet", "st-labeled-pair", "st-labeled-list"
]


def export(
    output: Output,
    format: Annotated[
        Format, typer.Option("--format", help="The format; st- are those of sentence-transformers.")
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="What to write: for trec and beir a folder, else a .jsonl (st-: or .parquet).",
            callback=not_empty,
        ),
    ],
    run_id: RunId = None,
    order: Annotated[
        Literal["reranked", "bm25"], typer.Option("--order", help="Order of the candidates, for rankllm.")
    ] = "reranked",
    split: Split = "dev",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a published run in the format of another tool. Queries are personal data: they are in what is written."""
    from pipelines.exchange import export as exchange

    done = exchange.export(output, format=format, to=to, run_id=run_id or "", side=order, split=split)
    if as_json:
        typer.echo(json.dumps(done._asdict(), ensure_ascii=False))
    elif not quiet:
        counts = ", ".join(f"{count:,} {what}" for what, count in done.counts.items()) or "nothing"
        console.out.print(
            f"[bold]{cut(done.path, 200)}[/]  {counts} of run {done.run_id}; with the queries' texts"
        )
        for note in done.notes:
            console.out.print(f"  {cut(note, 300)}")
