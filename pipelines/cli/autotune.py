"""`nightrank autotune`: which engine runs a model fastest on this machine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipelines.cli import console
from pipelines.cli.options import Json, Quiet, RunDate, day_or_yesterday, load_night
from rerank_core.config.night import Config
from rerank_core.config.toml import model_path
from rerank_core.errors import ConfigError

if TYPE_CHECKING:
    from rerank_core.scoring.tuning import Tuning


@contextmanager
def measuring(*, show: bool) -> Iterator[Callable[[str], None]]:
    """Give a callback that shows which engine is being measured, on a terminal."""
    if not (show and console.err.is_terminal):
        yield lambda label: None
        return
    with console.err.status("Measuring ...") as status:
        yield lambda label: status.update(f"Opening {escape(label)} ...")


def print_tuning(tuning: Tuning) -> None:
    """The engines, fastest first, why some are dropped, and what to do with the result."""
    best = tuning.best
    table = Table("engine", box=None, pad_edge=False, header_style="bold")
    for name in ("pairs/s", "agrees", "Spearman"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in sorted(tuning.measured, key=lambda m: -m.pairs_per_second):
        figures = ["", "", ""]
        if row.pairs_per_second > 0:
            figures = [f"{row.pairs_per_second:,.0f}", f"{row.agreement:.4f}", f"{row.correlation:.4f}"]
        note = "[bold green]chosen[/]" if row.choice == best else escape(row.dropped)
        table.add_row(escape(row.choice.label), *figures, note)
    size = f"{tuning.pairs:,} pairs of at most {tuning.max_length} tokens"
    console.out.print(f"{size} on {escape(tuning.machine)}", soft_wrap=True)
    console.out.print(table)
    console.out.print(
        f"agrees: nDCG@10 of an engine's order by that of {escape(tuning.reference)}. Stored for this machine: "
        'scoring.backend = "auto" reads it.',
        soft_wrap=True,
    )
    chosen = best._asdict()
    for name in [name for name, value in chosen.items() if value and (name, value) != ("device", "cpu")]:
        console.out.print(f'  {name} = "{escape(chosen[name])}"', soft_wrap=True)


def autotune(
    model: Annotated[str, typer.Argument(help="A model, in place of the configured one.")] = "",
    config: Annotated[
        Path | None, typer.Option("--config", help="The night's TOML; its log and index give the pairs.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help='Take the pairs from a JSONL of {"query", "passage"} instead.'),
    ] = None,
    run_date: RunDate = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure which engine runs a model fastest on this machine with the right ranking; backend = "auto" reads it."""
    from pipelines import autotune
    from pipelines.registry.resolve import resolve
    from pipelines.sources import open_source

    night = resolve(load_night(config)) if config else Config()
    scoring = dataclasses.replace(night.scoring, model=model_path(model, Path())) if model else night.scoring
    if pairs:
        groups = autotune.read_pairs(pairs)
    elif config:
        groups = autotune.sample(night, open_source(night), run_date=day_or_yesterday(run_date))
    else:
        raise ConfigError("nothing to measure by: give --config FILE of the night, or --pairs FILE")
    with measuring(show=not (quiet or as_json)) as on_measured:
        tuning = autotune.measure(scoring, groups, on_measured=on_measured)
    autotune.store(scoring, tuning)
    if as_json:
        typer.echo(json.dumps(autotune.as_json(tuning)))
    elif not quiet:
        print_tuning(tuning)
