"""`nightrank fuse` as a command; pipelines/cli.py adds it to the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines import report
from pipelines.cli_evaluate import grade, index_folder


def fuse(
    model: Annotated[str, typer.Argument(help="A cross-encoder's folder, or default: the one that ships.")],
    sets: Annotated[list[Path], typer.Argument(metavar="SET...", help="Folders in BEIR's layout.")],
    backend: Annotated[str, typer.Option("--backend", help="onnx, openvino, torch or causal_lm.")] = "",
    bi_encoder: Annotated[
        str, typer.Option("--bi-encoder", help="A bi-encoder's folder, whose cosine may take part.")
    ] = "",
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Tags may not take part.")] = False,
    split: Annotated[str, typer.Option("--split", help="Which queries and judgements.")] = "dev",
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Candidates: BM25's best so many.")] = 50,
    own: Annotated[
        bool, typer.Option("--own", help="Candidates: a question's own list, where it has one.")
    ] = False,
    min_relevance: Annotated[
        list[str] | None, typer.Option("--min-relevance", help="Lowest grade that is relevant: 2, or SET=2.")
    ] = None,
    max_length: Annotated[int, typer.Option("--max-length", min=8, help="Tokens that a model reads.")] = 256,
    max_queries: Annotated[int, typer.Option("--max-queries", min=0, help="Queries of a set; 0: all.")] = 0,
    work: Annotated[Path | None, typer.Option("--work", help="Folder that keeps indices and scores.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Store nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else.")
    ] = False,
) -> None:
    """Fit how a model's logits, BM25, titles, tags and a bi-encoder make one order, and store it beside the model."""
    from pipelines import fuse as fitting
    from pipelines import report_fusion
    from pipelines.judged_sets import Wanted, read_set
    from pipelines.systems import open_system, parse
    from rerank_core.scoring import load_scorer

    (system,) = parse([f"{backend}:{model}" if backend else model])
    opened = open_system(system._replace(alone=True), tags=["auto"], max_length=max_length, work=work)
    cheap = load_scorer(bi_encoder, backend="bi_encoder", max_length=max_length) if bi_encoder else None
    opened = opened._replace(cheap=cheap)
    wanted = Wanted(split, "document", own, top_k=top_k, max_queries=max_queries)
    shown = not (quiet or as_json)
    with index_folder(work) as folder, report.counter("Scoring", unit="pairs", show=shown) as count:
        fit_sets = {}
        for path in sets:
            lowest = grade(min_relevance or (), path.resolve().name)
            judged = read_set(path, wanted=wanted._replace(min_relevance=lowest), work=folder)
            fit_sets[judged.name] = fitting.fit_set(judged, opened, on_scored=count)
    found = fitting.fit(fit_sets, bi_encoder=cheap, tags=not no_tags)
    kept = None if dry_run else fitting.keep(system.path, found)
    if as_json:
        told = {
            "weights": report_fusion.weights(found.fusion),
            "bias": found.fusion.bias,
            **fitting.told(found),
        }
        typer.echo(json.dumps({**told, "path": str(kept) if kept else None}))
    elif not quiet:
        report_fusion.print_fusion(found, kept)
