"""What a person sees of `nightrank autotune`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.table import Table

from pipelines.report import err, out
from rerank_core.scoring.autotune import Tuning


@contextmanager
def trying(*, show: bool) -> Iterator[Callable[[str], None]]:
    """Give a callback that is told what is measured now."""
    with err.status("Measuring ...") if show and err.is_terminal else _silent() as status:

        def tell(label: str) -> None:
            if status is not None:
                status.update(f"Opening {escape(label)} ...")

        yield tell


@contextmanager
def _silent() -> Iterator[None]:
    yield None


def print_tuning(tuning: Tuning) -> None:
    """The engines, fastest first, with what speaks against some, and what to do with the result."""
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
    out.print(f"{size} on {escape(tuning.machine)}", soft_wrap=True)
    out.print(table)
    out.print(
        f"agrees: nDCG@10 of an engine's order by that of {escape(tuning.reference)}. Kept for this machine: "
        'scoring.backend = "auto" takes it.',
        soft_wrap=True,
    )
    chosen = best._asdict()
    for name in [name for name, value in chosen.items() if value and (name, value) != ("device", "cpu")]:
        out.print(f'  {name} = "{escape(chosen[name])}"', soft_wrap=True)
