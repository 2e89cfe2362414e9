"""`nightrank fuse` as a command; pipelines/cli.py adds it to the others."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines import report
from pipelines.cli_options import (
    Backend,
    DryRun,
    Json,
    MaxLength,
    MaxQueries,
    MinRelevance,
    Model,
    Own,
    Quiet,
    Sets,
    Split,
    TopK,
    Work,
    check_names,
    grade,
    index_folder,
)


def fuse(
    model: Model,
    sets: Sets,
    backend: Backend = "",
    bi_encoder: Annotated[
        str, typer.Option("--bi-encoder", help="A bi-encoder's folder, whose cosine may take part.")
    ] = "",
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Tags may not take part.")] = False,
    split: Split = "dev",
    top_k: TopK = 50,
    own: Own = False,
    min_relevance: MinRelevance = None,
    max_length: MaxLength = 256,
    max_queries: MaxQueries = 0,
    work: Work = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit how a model's logits, BM25, links, tags and a bi-encoder make one order, and store it beside the model."""
    from pipelines import fuse as fitting
    from pipelines import report_fusion
    from pipelines.judged_sets import Wanted, read_set
    from pipelines.systems import open_bi_encoder, open_system, parse

    check_names(sets)
    (system,) = parse([f"{backend}:{model}" if backend else model])
    opened = open_system(system._replace(alone=True), tags=["auto"], max_length=max_length, work=work)
    cheap = open_bi_encoder(bi_encoder, max_length=max_length, work=work)
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
