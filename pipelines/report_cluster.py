"""What a person sees of `nightrank publish` and `nightrank load`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from pipelines.report import out

if TYPE_CHECKING:
    from pipelines.load_elasticsearch import Loaded
    from pipelines.publish_elasticsearch import Published, RolledBack


def print_published(done: Published) -> None:
    """What a publish did."""
    if not done.swapped:
        out.print(
            f"[bold]{escape(done.alias)}[/] serves run {done.run_id} already: {done.queries:,} queries, verified",
            soft_wrap=True,
        )
        return
    rate = done.queries / max(1e-9, done.seconds)
    out.print(
        f"[bold green]Published[/] run {done.run_id}: {done.queries:,} queries, verified, in {done.seconds:.1f} s "
        f"({rate:,.0f} a second)",
        soft_wrap=True,
    )
    before = f", before {escape(done.previous)}" if done.previous else ""
    out.print(f"  {escape(done.alias)} -> {escape(done.index)}{before}", soft_wrap=True)
    for index in done.removed:
        out.print(f"  removed {escape(index)}", soft_wrap=True)


def print_rolled_back(done: RolledBack) -> None:
    """What a rollback did."""
    out.print(f"[bold green]Rolled back[/] to run {done.run_id}", soft_wrap=True)
    out.print(f"  {escape(done.alias)} -> {escape(done.index)}, before {escape(done.left)}", soft_wrap=True)


def print_loaded(done: Loaded) -> None:
    """What a load did."""
    what = "passages" if done.kind == "corpus" else "events"
    rate = done.documents / max(1e-9, done.seconds)
    analyzer = f", analyzer {done.analyzer}" if done.analyzer else ""
    out.print(
        f"[bold green]Loaded[/] {done.documents:,} {what} into {escape(done.index)}{analyzer}, verified, "
        f"in {done.seconds:.1f} s ({rate:,.0f} a second)",
        soft_wrap=True,
    )
    if done.rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in done.rejected.items())
        out.print(f"[yellow]Rejected[/] {sum(done.rejected.values()):,}: {reasons}", soft_wrap=True)
