"""`nightrank index`: builds the embedded BM25 index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli import console
from pipelines.cli.options import Json, Quiet

if TYPE_CHECKING:
    from pipelines.sources.local.bm25_index import IndexReport


def index(
    corpus: Annotated[Path, typer.Argument(help="A JSONL file of {_id, title, text}, or a BEIR folder.")],
    to: Annotated[Path, typer.Option("--to", help="Folder of the index; an older index there is replaced.")],
    language: Annotated[
        str,
        typer.Option(
            help="Language whose word endings and stop words are ignored: auto (recognised), none, "
            "ar da de el en es fi fr hu it nl no pt ro ru sv ta tr; cjk, ja, ko, th, zh are taken for English, since "
            "their own words are always found by n-grams."
        ),
    ] = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Build the embedded BM25 index over a corpus."""
    from pipelines.sources.local.bm25_index import build_index

    with console.counter("Indexing", unit="passages", show=not (quiet or as_json)) as count:
        built = build_index(corpus, to, language=language, on_progress=count)
    if as_json:
        typer.echo(json.dumps({**built._asdict(), "path": str(built.path)}))
    elif not quiet:
        print_index(built)


def print_index(report: IndexReport) -> None:
    """Print the result of indexing."""
    console.out.print(
        f"[bold green]Indexed[/] {report.documents:,} passages in {console.printable(str(report.path))} "
        f"(language: {report.language})"
    )
    if report.rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(report.rejected.items()))
        console.out.print(
            f"[yellow]Rejected[/] {sum(report.rejected.values()):,}: {reasons}; see rejected.jsonl there"
        )
