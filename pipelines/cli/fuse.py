"""`nightrank fuse`: fits the weights of the fused order."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.options import (
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

if TYPE_CHECKING:
    from rerank_core.ranking.fusion import Fusion
    from rerank_core.ranking.fusion_fit import FusionFit


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
    from pipelines.evaluate import fuse as fitting
    from pipelines.evaluate.judged_sets import Wanted, read_set
    from pipelines.evaluate.systems import open_bi_encoder, open_system, parse

    check_names(sets)
    (system,) = parse([f"{backend}:{model}" if backend else model])
    opened = open_system(system._replace(alone=True), tags=["auto"], max_length=max_length, work=work)
    cheap = open_bi_encoder(bi_encoder, max_length=max_length, work=work)
    opened = opened._replace(cheap=cheap)
    wanted = Wanted(split, "document", own, top_k=top_k, max_queries=max_queries)
    shown = not (quiet or as_json)
    with index_folder(work) as folder, console.counter("Scoring", unit="pairs", show=shown) as count:
        fit_sets = {}
        for path in sets:
            lowest = grade(min_relevance or (), path.resolve().name)
            judged = read_set(path, wanted=wanted._replace(min_relevance=lowest), work=folder)
            fit_sets[judged.name] = fitting.fit_set(judged, opened, on_scored=count)
    found = fitting.fit(fit_sets, bi_encoder=cheap, tags=not no_tags)
    kept = None if dry_run else fitting.keep(system.path, found)
    if as_json:
        told = {
            "weights": weights(found.fusion),
            "bias": found.fusion.bias,
            **fitting.told(found),
        }
        typer.echo(json.dumps({**told, "path": str(kept) if kept else None}))
    elif not quiet:
        print_fusion(found, kept)


SHOWN = ("nDCG@10", "MAP")


def weights(fusion: Fusion) -> dict[str, float]:
    """The weights that are not 0, by feature."""
    from rerank_core.ranking.fusion import FEATURES

    return {name: weight for name, weight in zip(FEATURES, fusion.weights, strict=True) if weight}


def print_fusion(found: FusionFit, kept: Path | None) -> None:
    """The figures of each set, the weights, and where they lie."""
    from rerank_core.ranking.fusion_fit import FUSED, MAX_GAP

    scores = list(next(iter(found.figures.values())))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(" / ".join(SHOWN))
    for score in scores:
        table.add_column(score, justify="right", style="green" if score == FUSED else None)
    for name, rows in found.figures.items():
        cells = (" / ".join(f"{100 * rows[score][measure]:.1f}" for measure in SHOWN) for score in scores)
        table.add_row(name, *cells)
    console.out.print(table)
    if math.isinf(found.ridge):
        console.out.print(
            f"[yellow]no mixture beats {found.best_single} on questions that it was not fitted on: it stays alone[/]"
        )
    else:
        console.out.print("[bold]fused[/] is of questions that its weights were not fitted on")
    errors = ", ".join(f"{name} {100 * error:.1f}" for name, error in found.error.items())
    console.out.print(f"[bold]expected calibration error[/] of the fused score, %: {errors}", soft_wrap=True)
    told = ", ".join(f"{name} {weight:+.3g}" for name, weight in weights(found.fusion).items())
    console.out.print(
        f"[bold]weights[/] {told}, and {found.fusion.bias:+.3g}; fitted on {found.used:,} questions",
        soft_wrap=True,
    )
    if found.tag_share < 1 and not math.isinf(found.ridge):
        console.out.print(
            f"weights of tags are cut to {100 * found.tag_share:.0f} % of what was found, so that no set loses more "
            f"than {100 * MAX_GAP:.0f} point of MAP where tags are missing or shuffled",
            soft_wrap=True,
        )
    console.out.print(f"stored in {kept}" if kept else "stored nowhere (--dry-run)", soft_wrap=True)
