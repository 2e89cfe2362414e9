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
from rerank_core.config.backends import cross_encoders
from rerank_core.errors import ConfigError

if TYPE_CHECKING:
    from rerank_core.evaluation.comparison import Measured, Result, SetResult
    from rerank_core.evaluation.significance import Verdict

SYSTEM_HELP = (
    "bm25, default (the model that ships), a cross-encoder's folder or hub name, "
    f"BACKEND:NAME ({', '.join(cross_encoders())}), bi:NAME (a bi-encoder), run:FILE (TREC). alone:MODEL leaves its "
    "fusion weights out. LABEL=... names it. Repeatable."
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
    from pipelines.evaluate import files
    from pipelines.evaluate.judged_sets import Wanted, read_set
    from pipelines.evaluate.night_result import NIGHTS_SYSTEMS, Night, evaluate_night
    from pipelines.evaluate.run import evaluate_set
    from pipelines.evaluate.systems import open_bi_encoder, open_system, parse
    from rerank_core.evaluation.comparison import check_baseline, compare

    named, paths = parse(system or ()), [path.resolve() for path in sets or ()]
    _check_call(paths, night=night, judgements=bool(queries and qrels), kinds=[one.kind for one in named])
    check_baseline(baseline, [*(one.name for one in named), *(NIGHTS_SYSTEMS if night else ())])
    files.check_targets(per_query, json_file)
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
        with console.counter("Indexing", unit="passages", show=not quiet) as count:
            judged = [
                read_set(
                    path,
                    wanted=wanted._replace(min_relevance=grades[path.name]),
                    work=folder,
                    on_progress=count,
                )
                for path in paths
            ]
        with console.counter("Scoring", unit="pairs", show=not quiet) as count:
            results = [evaluate_set(one, systems, on_scored=count) for one in judged]
    fingerprints = {one.system.name: one.scorer.fingerprint for one in systems if one.scorer}
    result = compare([*results, *nights], baseline=baseline, fingerprints=fingerprints)
    if per_query:
        files.write_per_query(result, per_query)
    if json_file:
        settings = wanted._asdict() | {"min_relevance": grades, "max_length": max_length, "tags": modes}
        told = files.plain(result, settings=settings)
        json_file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if not quiet:
        print_evaluation(result)


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


COUNTS = {
    "judged_but_unknown": "queries of the judgements are not in queries.jsonl with this split",
    "without_relevant": "judged queries have nothing relevant and are not measured",
    "without_own_candidates": "judged queries have no candidates of their own, and were left out by --own-only",
    "not_asked": "more queries were left out by --max-queries",
    "corpus_lines_rejected": "lines of the corpus could not be indexed",
    "without_text": "candidates had no text to rank",
}
ADVERSE = {
    "missing": "queries it ranks nothing for (zero in every measure)",
    "failed": "pairs it could not score (left out of the list)",
    "truncated": "pairs it did not read to their end",
    "unscored": "pairs pruned by the cascade (in neither F1 nor AUC)",
}


def print_evaluation(result: Result) -> None:
    """All tables."""
    from rerank_core.evaluation.significance import LEVEL

    for one in result.sets:
        _print_set(one, result)
    tests = sum(len(verdicts) for verdicts in result.verdicts.values()) // len(result.verdicts)
    if tests:
        bases = ", ".join(escape(name) for name in dict.fromkeys(result.baselines.values()))
        console.out.print(
            f"[bold]best[/]; * better, † worse than {bases} in nDCG@10 or MAP: paired randomisation test, "
            f"p < {LEVEL:g}, corrected by Holm over {tests} comparison{'s' * (tests != 1)} a measure"
        )
    console.out.print("F1 (at a sigmoid of 0.5) and AUC are over all pairs together; F1 needs logits")


def _print_set(one: SetResult, result: Result) -> None:
    from rerank_core.evaluation.comparison import TESTED
    from rerank_core.evaluation.measures import MEASURES

    unit = "sentences" if one.level == "unit" else "documents"
    reach = f"{100 * one.reach:.1f} % of the relevant {unit} among them"
    told = f"{one.queries:,} queries; candidates: {escape(one.told)}, {reach}"
    console.out.print(f"\n[bold]{escape(one.name)}[/]  {told}")
    for what, count in one.counts.items():
        if count and what in COUNTS:
            console.out.print(f"  [yellow]{count:,}[/] {COUNTS[what]}")
    for note in one.notes:
        console.out.print(f"  [yellow]{escape(note)}[/]")
    rows = {
        system: {**found.means, "F1": found.f1, "AUC": found.auc} for system, found in one.systems.items()
    }
    marks = {
        (system, measure): _mark(result.verdicts[measure].get((one.name, system)))
        for system in rows
        for measure in TESTED
    }
    console.out.print(_table([*MEASURES, "F1", "AUC"], rows, marks))
    _print_adverse(one.systems)
    _print_types(one)
    _print_shortcut(one)


def _print_adverse(systems: Mapping[str, Measured]) -> None:
    """What is to be known of each system before its figures are believed."""
    told: dict[str, list[str]] = {}
    for system, found in systems.items():
        lines = [f"[yellow]{n:,}[/] {text}" for what, text in ADVERSE.items() if (n := getattr(found, what))]
        if (mode := next(iter(found.by_tags), "none")) != "none":
            lines.append(f"measured with {mode} tags in the input")
        for line in lines:
            told.setdefault(line, []).append(escape(system))
    for line, names in told.items():
        console.out.print(f"  {line}: {', '.join(names)}")


def _print_types(one: SetResult) -> None:
    from pipelines.evaluate.files import means_by_type

    by_system = {system: means_by_type(one, found) for system, found in one.systems.items()}
    kinds = next(iter(by_system.values()))
    if len(kinds) < 2:
        return
    console.out.print("nDCG@10 by type of query")
    names = {kind: f"{kind} ({int(values['queries']):,})" for kind, values in kinds.items()}
    rows = {
        system: {name: found[kind]["nDCG@10"] for kind, name in names.items()}
        for system, found in by_system.items()
    }
    console.out.print(_table(list(names.values()), rows, {}))


def _print_shortcut(one: SetResult) -> None:
    """MAP by mode of tags, of the systems that were measured in several."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    modes = list(dict.fromkeys(mode for found in one.systems.values() for mode in found.by_tags))
    table.add_column("system", overflow="fold")
    for mode in modes:
        table.add_column(mode, justify="right", no_wrap=True)
    for system, found in one.systems.items():
        if len(found.by_tags) < 2:
            continue
        first = next(iter(found.by_tags.values()))
        cells = [
            f"{100 * found.by_tags[mode]:.1f} ({100 * (found.by_tags[mode] - first):+.1f})"
            if mode in found.by_tags
            else "-"
            for mode in modes
        ]
        table.add_row(escape(system), *cells)
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
