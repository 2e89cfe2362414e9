"""`nightrank publish` and `nightrank load`: writing to an Elasticsearch cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pipelines.cli import console
from pipelines.cli.options import Json, Quiet, RunId
from rerank_core.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.elasticsearch.load import Loaded
    from pipelines.elasticsearch.publish import Published, RolledBack


TO_HELP = (
    "URL of the cluster. Credentials are read from NIGHTRANK_ES_API_KEY, NIGHTRANK_ES_USERNAME and "
    "NIGHTRANK_ES_PASSWORD, or NIGHTRANK_ES_BEARER."
)
CA_HELP = "The cluster's certificate authority, PEM; default: the system's."


def publish(
    to: Annotated[str, typer.Option("--to", help=TO_HELP)],
    run: Annotated[
        str, typer.Argument(help="Output folder of the nightly job; not needed with --rollback.")
    ] = "",
    alias: Annotated[str, typer.Option("--alias", help="The alias that readers use.")] = "nightrank",
    run_id: RunId = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Point the alias at the index that was served before.")
    ] = False,
    keep: Annotated[int, typer.Option("--keep", min=0, help="Older indices to keep, to roll back to.")] = 2,
    ca_file: Annotated[str, typer.Option("--ca-file", help=CA_HELP)] = "",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Publish a run's reranked lists into Elasticsearch: a new, verified index behind an alias."""
    from pipelines.elasticsearch import publish
    from pipelines.elasticsearch.write import open_cluster
    from pipelines.storage import runs

    if bool(run) == rollback:
        raise ConfigError("give RUN, the output folder of the nightly job, or --rollback (and no RUN)")
    cluster = open_cluster(to, ca_file=ca_file)
    if rollback:
        back = publish.rollback(cluster, alias)
        _print(back, print_rolled_back, quiet=quiet, as_json=as_json)
        return
    manifest = runs.open_run(run, run_id or "")
    with console.counter("Publishing", unit="queries", show=not (quiet or as_json)) as count:
        done = publish.publish(cluster, run, manifest, alias=alias, keep=keep, on_progress=count)
    _print(done, print_published, quiet=quiet, as_json=as_json)


def load(
    path: Annotated[
        str, typer.Argument(help="A corpus (BEIR folder, JSONL) or a query log (JSONL, Parquet).")
    ],
    to: Annotated[str, typer.Option("--to", help=TO_HELP)],
    index: Annotated[str, typer.Option("--index", help="Name of the index to create.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="First remove an existing index of that name.")
    ] = False,
    ca_file: Annotated[str, typer.Option("--ca-file", help=CA_HELP)] = "",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Load a corpus or a query log into Elasticsearch, to try Nightrank out against a cluster."""
    from pipelines.elasticsearch import load
    from pipelines.elasticsearch.write import open_cluster

    cluster = open_cluster(to, ca_file=ca_file)
    with console.counter("Loading", unit="documents", show=not (quiet or as_json)) as count:
        done = load.load(cluster, path, index=index, replace=replace, on_progress=count)
    _print(done, print_loaded, quiet=quiet, as_json=as_json)


def _print(done: Any, show: Callable[[Any], None], *, quiet: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(done._asdict(), ensure_ascii=False))
    elif not quiet:
        show(done)


def print_published(done: Published) -> None:
    """Print the result of a publish."""
    if not done.swapped:
        console.out.print(
            f"[bold]{escape(done.alias)}[/] already serves run {done.run_id}: {done.queries:,} queries, verified",
            soft_wrap=True,
        )
        return
    rate = done.queries / max(1e-9, done.seconds)
    console.out.print(
        f"[bold green]Published[/] run {done.run_id}: {done.queries:,} queries, verified, in {done.seconds:.1f} s "
        f"({rate:,.0f} per second)",
        soft_wrap=True,
    )
    before = f", previously {escape(done.previous)}" if done.previous else ""
    console.out.print(f"  {escape(done.alias)} -> {escape(done.index)}{before}", soft_wrap=True)
    for index in done.removed:
        console.out.print(f"  removed {escape(index)}", soft_wrap=True)


def print_rolled_back(done: RolledBack) -> None:
    """Print the result of a rollback."""
    console.out.print(f"[bold green]Rolled back[/] to run {done.run_id}", soft_wrap=True)
    console.out.print(
        f"  {escape(done.alias)} -> {escape(done.index)}, previously {escape(done.left)}", soft_wrap=True
    )


def print_loaded(done: Loaded) -> None:
    """Print the result of a load."""
    what = "passages" if done.kind == "corpus" else "events"
    rate = done.documents / max(1e-9, done.seconds)
    analyzer = f", analyzer {done.analyzer}" if done.analyzer else ""
    console.out.print(
        f"[bold green]Loaded[/] {done.documents:,} {what} into {escape(done.index)}{analyzer}, verified, "
        f"in {done.seconds:.1f} s ({rate:,.0f} per second)",
        soft_wrap=True,
    )
    if done.rejected:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in done.rejected.items())
        console.out.print(f"[yellow]Rejected[/] {sum(done.rejected.values()):,}: {reasons}", soft_wrap=True)
