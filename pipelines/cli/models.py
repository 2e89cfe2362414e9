"""`nightrank models`: the models of a registry, with their states and their lineage."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.console import cut, file_size, printable
from pipelines.cli.options import Json, Quiet, not_empty

if TYPE_CHECKING:
    from pipelines.registry.entry import Decision, Entry

COLOURS = {"serving": "green", "candidate": "yellow", "retired": "dim"}


def models(
    registry: Annotated[
        str, typer.Argument(help="registry.path of the night: a folder, gs:// or s3://.", callback=not_empty)
    ],
    add: Annotated[
        Path | None,
        typer.Option(
            "--add", metavar="FOLDER", help="Add a model's folder, as a candidate.", show_default=False
        ),
    ] = None,
    remove: Annotated[
        str | None,
        typer.Option("--remove", metavar="ID", help="Remove a retired model.", callback=not_empty),
    ] = None,
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Show what was decided, with every check.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List the models of a registry; add one, or remove one."""
    from pipelines.registry.resolve import describe
    from pipelines.registry.store import Registry

    store = Registry(registry)
    added = store.add(add) if add else None
    if remove:
        store.remove(remove)
    entries, (made, problems) = store.entries(), store.log()
    if as_json:
        record = {
            "added": added.id if added else None,
            "models": [describe(entry) for entry in entries],
            "decisions": [dataclasses.asdict(decision) for decision in made],
            "problems": problems,
        }
        typer.echo(json.dumps(record, ensure_ascii=False))
    elif not quiet:
        print_models(entries, registry=registry)
        if added:
            console.out.print(f"\n[bold]Added[/] {added.id}, {added.state}", soft_wrap=True)
        for decision in made if decisions else ():
            print_decision(decision)
        for problem in problems:
            console.out.print(f"[yellow]damaged[/] {printable(problem)}", soft_wrap=True)


def print_models(entries: list[Entry], *, registry: str) -> None:
    """The models, the newest first."""
    if not entries:
        console.out.print(
            f"no models in {printable(registry)}; add one with --add FOLDER. Until one serves, the model that ships "
            "with Nightrank does",
            soft_wrap=True,
        )
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("model", "state", "since", "size", "trained on", "from"):
        table.add_column(
            name, justify="right" if name == "size" else "left", no_wrap=name in ("model", "since")
        )
    for entry in entries:
        size = sum(file.bytes for file in entry.files.values())
        runs = ", ".join(run.run_id for run in entry.lineage.runs)
        parent = entry.lineage.parent
        table.add_row(
            entry.id,
            f"[{COLOURS[entry.state]}]{entry.state}[/]",
            entry.history[-1].at[:16].replace("T", " "),
            file_size(size),
            cut(runs, 60) or "-",
            cut((parent.model or parent.name) if parent else "", 40) or "-",
        )
    console.out.print(table)


def print_decision(decision: Decision) -> None:
    """A decision with its checks."""
    name = decision.model or "the model that ships"
    forced = " by force" if decision.forced else ""
    what = (
        f"rolled back to {name}" if decision.action == "rolled_back" else f"{name} {decision.action}{forced}"
    )
    console.out.print(
        f"\n[bold]{decision.at[:16].replace('T', ' ')}[/] {what}: {cut(decision.reason, 1000)}",
        soft_wrap=True,
    )
    print_checks(decision.checks)


def print_checks(checks: tuple[dict[str, object], ...]) -> None:
    """Every check of a decision in words."""
    for check in checks:
        mark = "[green]passed[/]" if check["passed"] else "[red]failed[/]"
        console.out.print(f"  {mark} {cut(str(check['sentence']), 1000)}", soft_wrap=True)
