"""`nightrank evaluate` as a command; pipelines/cli.py adds it to the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines import report
from pipelines.cli_options import (
    MaxLength,
    MaxQueries,
    MinRelevance,
    Own,
    Quiet,
    Split,
    TopK,
    check_names,
    grade,
    index_folder,
)
from rerank_core.config import ConfigError

SYSTEM_HELP = (
    "bm25, default (the model that ships), a cross-encoder's folder or hub name, openvino:, onnx:, torch: or "
    "causal_lm:NAME, bi:NAME (a bi-encoder), run:FILE (TREC). alone:MODEL leaves its fusion weights out. LABEL=... "
    "names it. Repeatable."
)
TAGS_HELP = (
    "Tags in the input: auto (as the model says; one that reads them is measured with all), true, none, shuffled, "
    "forged. Repeatable: the first is measured, the others beside it."
)


def evaluate(
    sets: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SET", help="Folders in BEIR's layout, with qrels/SPLIT.tsv."),
    ] = None,
    system: Annotated[list[str] | None, typer.Option("--system", help=SYSTEM_HELP)] = None,
    split: Split = "dev",
    top_k: TopK = 100,
    own: Own = False,
    own_only: Annotated[
        bool, typer.Option("--own-only", help="The same, and only the questions that have one.")
    ] = False,
    baseline: Annotated[
        str, typer.Option("--baseline", help="The system that others are tested against; default: the first.")
    ] = "",
    tags: Annotated[list[str] | None, typer.Option("--tags", help=TAGS_HELP)] = None,
    level: Annotated[
        Literal["document", "unit"], typer.Option("--level", help="What is ranked; unit: sentences.")
    ] = "document",
    min_relevance: MinRelevance = None,
    bi_encoder: Annotated[
        str, typer.Option("--bi-encoder", help="A bi-encoder's folder, for fusion weights that need it.")
    ] = "",
    max_length: MaxLength = 256,
    max_queries: MaxQueries = 0,
    night: Annotated[str, typer.Option("--night", help="A night's output folder: before and after.")] = "",
    run_id: Annotated[str, typer.Option("--run-id", help="Of the night; default: the newest.")] = "",
    queries: Annotated[str, typer.Option("--queries", help="Of the night: a BEIR queries.jsonl.")] = "",
    qrels: Annotated[
        str, typer.Option("--qrels", help="Of the night: documents, or at --level unit sentences.")
    ] = "",
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Folder that keeps the sets' indices, and scores, for the next time."),
    ] = None,
    per_query: Annotated[
        Path | None, typer.Option("--per-query", help="A row a set, system and query: .parquet or .jsonl.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="All figures, p-values, counts, fingerprints.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure rerankers on judged sets, or a published night, side by side, with tests of significance."""
    from pipelines import evaluation_files, report_evaluation
    from pipelines.evaluate import evaluate_set
    from pipelines.judged_sets import Wanted, read_set
    from pipelines.night_result import NIGHTS_SYSTEMS, Night, evaluate_night
    from pipelines.systems import open_bi_encoder, open_system, parse
    from rerank_core.side_by_side import check_baseline, compare

    named, paths = parse(system or ()), [path.resolve() for path in sets or ()]
    _check_call(paths, night=night, judgements=bool(queries and qrels), kinds=[one.kind for one in named])
    check_baseline(baseline, [*(one.name for one in named), *(NIGHTS_SYSTEMS if night else ())])
    evaluation_files.check_targets(per_query, json_file)
    modes = tags or ["auto"]
    cheap = open_bi_encoder(bi_encoder, max_length=max_length, work=work)
    systems = [
        open_system(one, tags=modes, max_length=max_length, bi_encoder=cheap, work=work) for one in named
    ]
    grades = {name: grade(min_relevance or (), name) for name in (*(path.name for path in paths), "night")}
    wanted = Wanted(split, level, own, own_only, top_k, max_queries)
    nights = []
    if night:
        held = Night(night, queries, qrels, run_id, level, grades["night"])
        nights.append(evaluate_night(held, [one for one in systems if one.orders is not None]))
    with index_folder(work) as folder:
        with report.counter("Indexing", unit="passages", show=not quiet) as count:
            judged = [
                read_set(
                    path,
                    wanted=wanted._replace(min_relevance=grades[path.name]),
                    work=folder,
                    on_progress=count,
                )
                for path in paths
            ]
        with report.counter("Scoring", unit="pairs", show=not quiet) as count:
            results = [evaluate_set(one, systems, on_scored=count) for one in judged]
    fingerprints = {one.system.name: one.scorer.fingerprint for one in systems if one.scorer}
    result = compare([*results, *nights], baseline=baseline, fingerprints=fingerprints)
    if per_query:
        evaluation_files.write_per_query(result, per_query)
    if json_file:
        settings = wanted._asdict() | {"min_relevance": grades, "max_length": max_length, "tags": modes}
        told = evaluation_files.plain(result, settings=settings)
        json_file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if not quiet:
        report_evaluation.print_evaluation(result)


def _check_call(paths: Sequence[Path], *, night: str, judgements: bool, kinds: Sequence[str]) -> None:
    """Refuse what makes no sense together.

    Raises:
        ConfigError: what is missing or too much.
    """
    if not paths and not night:
        raise ConfigError("nothing to measure on: give SET, a folder of judged questions, or --night OUTPUT")
    check_names(paths)
    if paths and not kinds:
        raise ConfigError("nothing to measure: give --system bm25, default, a model's folder or run:FILE")
    if night and not judgements:
        raise ConfigError("--night needs --queries and --qrels, to know what is relevant")
    if judgements and not night:
        raise ConfigError("--queries and --qrels judge a --night; a SET holds its own")
    if not paths and set(kinds) - {"run"}:
        raise ConfigError(
            "a night is measured as it was published: give a SET for --system, or run:FILE alone"
        )
