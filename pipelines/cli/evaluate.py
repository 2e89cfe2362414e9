"""`nightrank evaluate`: rerankers side by side on judged sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.options import (
    Json,
    MaxLength,
    MaxQueries,
    MinRelevance,
    Own,
    Quiet,
    RunId,
    Split,
    TopK,
    Work,
    set_progress,
)
from pipelines.cli.options import min_relevance as grades
from rerank_core.config.backends import cross_encoders

if TYPE_CHECKING:
    from rerank_core.evaluation.comparison import Result, SetResult, SystemResult
    from rerank_core.evaluation.significance import Verdict

SYSTEM_HELP = (
    "bm25, default (the model that ships), a cross-encoder's folder or name on the Hub, "
    f"BACKEND:NAME ({', '.join(cross_encoders())}), bi:NAME (a bi-encoder), run:FILE (TREC). alone:MODEL ignores its "
    "fusion weights. LABEL=... names it. Repeatable."
)
TAGS_HELP = (
    "Tags in the input: auto (all modes if the model reads tags), true, none, shuffled, forged. Repeatable: the first "
    "is measured, the others are shown beside it."
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
        bool, typer.Option("--own-only", help="The same, and leave out questions without.")
    ] = False,
    baseline: Annotated[
        str,
        typer.Option("--baseline", help="The system that the others are tested against; default: the first."),
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
    run_id: RunId = None,
    queries: Annotated[str, typer.Option("--queries", help="Of the night: a BEIR queries.jsonl.")] = "",
    qrels: Annotated[
        str, typer.Option("--qrels", help="Of the night: documents, or at --level unit sentences.")
    ] = "",
    work: Work = None,
    per_query: Annotated[
        str | None,
        typer.Option("--per-query", help="File for a row per set, system and query: .parquet or .jsonl."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", help="File for the JSON of all figures, p-values, counts and fingerprints."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure rerankers on judged sets, or a published night, side by side, with tests of significance."""
    from pipelines.evaluate import files
    from pipelines.evaluate.run import evaluate as run_evaluation

    files.check_targets(per_query, output)
    with set_progress(show=not (quiet or as_json)) as (on_indexed, on_scored):
        result = run_evaluation(
            sets or (),
            systems=system or (),
            split=split,
            top_k=top_k,
            own=own,
            own_only=own_only,
            baseline=baseline,
            tags=tags or ("auto",),
            level=level,
            min_relevance=grades(min_relevance or ()),
            bi_encoder=bi_encoder,
            max_length=max_length,
            max_queries=max_queries,
            night=night,
            run_id=run_id or "",
            queries=queries,
            qrels=qrels,
            work=work,
            on_indexed=on_indexed,
            on_scored=on_scored,
        )
    if per_query:
        files.write_per_query(result, per_query)
    if output:
        files.write_json(result, output)
    if as_json:
        typer.echo(json.dumps(files.as_json(result), ensure_ascii=False))
    elif not quiet:
        print_evaluation(result)


COUNTS = {
    "judged_but_unknown": "queries of the judgements are not in queries.jsonl with this split",
    "without_relevant": "judged queries have nothing relevant and are not measured",
    "without_own_candidates": "judged queries have no candidates of their own and were left out by --own-only",
    "not_asked": "more queries were left out by --max-queries",
    "corpus_lines_rejected": "lines of the corpus could not be indexed",
    "without_text": "candidates had no text to rank",
}
WARNINGS = {
    "missing": "queries it ranks nothing for (zero in every measure)",
    "failed": "pairs it could not score (left out of the list)",
    "truncated": "pairs longer than --max-length (truncated)",
    "unscored": "pairs pruned by the cascade (in neither F1 nor AUC)",
}


def print_evaluation(result: Result) -> None:
    """All tables."""
    from rerank_core.evaluation.significance import LEVEL

    for judged in result.sets:
        _print_set(judged, result)
    tests = sum(len(verdicts) for verdicts in result.verdicts.values()) // len(result.verdicts)
    if tests:
        bases = ", ".join(escape(name) for name in dict.fromkeys(result.baselines.values()))
        console.out.print(
            f"[bold]best[/]; * better, † worse than {bases} in nDCG@10 or MAP: paired randomisation test, "
            f"p < {LEVEL:g}, corrected by Holm over {tests} comparison{'s' * (tests != 1)} a measure"
        )
    console.out.print("F1 (at a sigmoid of 0.5) and AUC are over all pairs together; F1 needs logits")


def _print_set(judged: SetResult, result: Result) -> None:
    from rerank_core.evaluation.comparison import TESTED
    from rerank_core.evaluation.measures import MEASURES

    unit = "sentences" if judged.level == "unit" else "documents"
    recall = f"{100 * judged.candidate_recall:.1f} % of the relevant {unit} among them"
    summary = f"{judged.queries:,} queries; candidates: {escape(judged.candidates)}, {recall}"
    console.out.print(f"\n[bold]{escape(judged.name)}[/]  {summary}")
    for what, count in judged.counts.items():
        if count and what in COUNTS:
            console.out.print(f"  [yellow]{count:,}[/] {COUNTS[what]}")
    for note in judged.notes:
        console.out.print(f"  [yellow]{escape(note)}[/]")
    rows = {
        name: {**system.means, "F1": system.f1, "AUC": system.auc} for name, system in judged.systems.items()
    }
    marks = {
        (name, measure): _mark(result.verdicts[measure].get((judged.name, name)))
        for name in rows
        for measure in TESTED
    }
    console.out.print(_table([*MEASURES, "F1", "AUC"], rows, marks))
    _print_warnings(judged.systems)
    _print_types(judged)
    _print_shortcut_gap(judged)


def _print_warnings(systems: Mapping[str, SystemResult]) -> None:
    """What qualifies a system's figures, each line with the systems that it applies to."""
    by_line: dict[str, list[str]] = {}
    for name, system in systems.items():
        lines = [
            f"[yellow]{n:,}[/] {text}" for what, text in WARNINGS.items() if (n := getattr(system, what))
        ]
        if (mode := next(iter(system.by_tags), "none")) != "none":
            lines.append(f"measured with {mode} tags in the input")
        for line in lines:
            by_line.setdefault(line, []).append(escape(name))
    for line, names in by_line.items():
        console.out.print(f"  {line}: {', '.join(names)}")


def _print_types(judged: SetResult) -> None:
    from pipelines.evaluate.files import means_by_type

    by_system = {name: means_by_type(judged, system) for name, system in judged.systems.items()}
    kinds = next(iter(by_system.values()))
    if len(kinds) < 2:
        return
    console.out.print("nDCG@10 by type of query")
    names = {kind: f"{kind} ({int(values['queries']):,})" for kind, values in kinds.items()}
    rows = {
        system: {name: by_type[kind]["nDCG@10"] for kind, name in names.items()}
        for system, by_type in by_system.items()
    }
    console.out.print(_table(list(names.values()), rows, {}))


def _print_shortcut_gap(judged: SetResult) -> None:
    """MAP by mode of tags, of the systems that were measured in several."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    modes = list(dict.fromkeys(mode for system in judged.systems.values() for mode in system.by_tags))
    table.add_column("system", overflow="fold")
    for mode in modes:
        table.add_column(mode, justify="right", no_wrap=True)
    for name, system in judged.systems.items():
        if len(system.by_tags) < 2:
            continue
        first = next(iter(system.by_tags.values()))
        cells = [
            f"{100 * system.by_tags[mode]:.1f} ({100 * (system.by_tags[mode] - first):+.1f})"
            if mode in system.by_tags
            else "-"
            for mode in modes
        ]
        table.add_row(escape(name), *cells)
    if table.row_count:
        console.out.print("Shortcut gap: MAP by the tags in the input, and the change from the first")
        console.out.print(table)


def _mark(verdict: Verdict | None) -> str:
    if verdict is None or not verdict.significant:
        return " "
    return "*" if verdict.change > 0 else "†"


def _table(
    columns: Sequence[str],
    rows: Mapping[str, Mapping[str, float | None]],
    marks: Mapping[tuple[str, str], str],
) -> Table:
    """Systems by measures, the best of each in bold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("system", overflow="fold")
    best = {}
    for column in columns:
        table.add_column(escape(column), justify="right", no_wrap=True)
        best[column] = max((v for row in rows.values() if (v := row[column]) is not None), default=None)
    for system, row in rows.items():
        cells = []
        for column in columns:
            value = row[column]
            text = "-" if value is None else f"{100 * value:.1f}"
            text = f"[bold]{text}[/]" if value is not None and value == best[column] else text
            cells.append(text + marks.get((system, column), " "))
        table.add_row(escape(system), *cells)
    return table
