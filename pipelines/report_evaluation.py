"""What a person sees of `nightrank evaluate`: a table a set, in percent, with what is better by more than luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from pipelines.evaluation_files import means_by_type
from pipelines.report import out
from rerank_core.evaluation import MEASURES
from rerank_core.side_by_side import TESTED, Measured, Result, SetResult
from rerank_core.significance import LEVEL, Verdict

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
    for one in result.sets:
        _print_set(one, result)
    tests = sum(len(verdicts) for verdicts in result.verdicts.values()) // len(result.verdicts)
    if tests:
        bases = ", ".join(escape(name) for name in dict.fromkeys(result.baselines.values()))
        out.print(
            f"[bold]best[/]; * better, † worse than {bases} in nDCG@10 or MAP: paired randomisation test, "
            f"p < {LEVEL:g}, corrected by Holm over {tests} comparison{'s' * (tests != 1)} a measure"
        )
    out.print("F1 (at a sigmoid of 0.5) and AUC are over all pairs together; F1 needs logits")


def _print_set(one: SetResult, result: Result) -> None:
    unit = "sentences" if one.level == "unit" else "documents"
    reach = f"{100 * one.reach:.1f} % of the relevant {unit} among them"
    told = f"{one.queries:,} queries; candidates: {escape(one.told)}, {reach}"
    out.print(f"\n[bold]{escape(one.name)}[/]  {told}")
    for what, count in one.counts.items():
        if count and what in COUNTS:
            out.print(f"  [yellow]{count:,}[/] {COUNTS[what]}")
    for note in one.notes:
        out.print(f"  [yellow]{escape(note)}[/]")
    rows = {
        system: {**found.means, "F1": found.f1, "AUC": found.auc} for system, found in one.systems.items()
    }
    marks = {
        (system, measure): _mark(result.verdicts[measure].get((one.name, system)))
        for system in rows
        for measure in TESTED
    }
    out.print(_table([*MEASURES, "F1", "AUC"], rows, marks))
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
        out.print(f"  {line}: {', '.join(names)}")


def _print_types(one: SetResult) -> None:
    by_system = {system: means_by_type(one, found) for system, found in one.systems.items()}
    kinds = next(iter(by_system.values()))
    if len(kinds) < 2:
        return
    out.print("nDCG@10 by type of query")
    names = {kind: f"{kind} ({int(values['queries']):,})" for kind, values in kinds.items()}
    rows = {
        system: {name: found[kind]["nDCG@10"] for kind, name in names.items()}
        for system, found in by_system.items()
    }
    out.print(_table(list(names.values()), rows, {}))


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
        out.print("Shortcut gap: MAP by the tags in the input, and the change from the first")
        out.print(table)


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
