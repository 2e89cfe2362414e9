"""The command line: `nightrank index`, `nightly`, `autotune`, `show`, `publish`, `load`, `train`, `evaluate` ...

Exit codes: 0 done; 2 the call or the configuration is wrong; 3 an input cannot be used (log, index, model,
judgements, a published run, a cluster); 4 another run holds the output folder; 5 the night ran but may not be
published, or could not be published back, or a training failed; 1 anything else, which is a defect: the traceback
is printed.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import pipelines
from pipelines import cli_calibrate, cli_evaluate, cli_fuse, cli_train, report
from pipelines.cli_options import Json, Quiet
from rerank_core.config import Config, ConfigError, load_config

BEAM_HELP = (
    "Flags for Apache Beam, after `--`: e.g. -- --direct_num_workers=2 --direct_running_mode=multi_processing, "
    "or -- --runner=DataflowRunner ..."
)
TO_HELP = "URL of the cluster; who asks stands in NIGHTRANK_ES_API_KEY, _USERNAME and _PASSWORD, or _BEARER."
CA_HELP = "The certificate authority of the cluster, PEM; default: those that this machine trusts."
EXIT_USAGE, EXIT_INPUT, EXIT_LOCKED, EXIT_UNPUBLISHED = 2, 3, 4, 5

app = typer.Typer(
    name="nightrank",
    help="Reranks a search index overnight: query log and BM25 candidates in, versioned Parquet out.",
    epilog="Start with `nightrank index CORPUS --to DIR`, then `nightrank nightly --config FILE`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nightrank {pipelines.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reranks a search index overnight: query log and BM25 candidates in, versioned Parquet out."""


@app.command()
def index(
    corpus: Annotated[Path, typer.Argument(help="A JSONL file of {_id, title, text}, or a BEIR folder.")],
    to: Annotated[Path, typer.Option("--to", help="Folder of the index; an older index there is replaced.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Build the embedded BM25 index over a corpus."""
    from pipelines.sources.bm25_index import build_index

    with _errors(), report.counter("Indexing", unit="passages", show=not (quiet or as_json)) as count:
        built = build_index(corpus, to, on_progress=count)
    if as_json:
        typer.echo(json.dumps({**built._asdict(), "path": str(built.path)}))
    elif not quiet:
        report.print_index(built)


@app.command()
def nightly(
    config: Annotated[Path, typer.Option("--config", help="The night's TOML; see examples/nightly.toml.")],
    run_date: Annotated[
        datetime.datetime | None,
        typer.Option(
            "--run-date", formats=["%Y-%m-%d"], help="Last day of the log's window; default: yesterday (UTC)."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    beam_flags: Annotated[list[str] | None, typer.Argument(metavar="[-- BEAM FLAGS]", help=BEAM_HELP)] = None,
) -> None:
    """Run one night: rerank the log's queries, mine hard negatives, publish both."""
    day = _day(run_date)
    with _errors():
        from pipelines.nightly import run

        night = load_config(config)
        with report.night_progress(show=not (quiet or as_json)) as progress:
            manifest = run(night, run_date=day, beam_flags=beam_flags or (), show=progress)
    if as_json:
        typer.echo(report.manifest_json(manifest))
    elif not quiet:
        report.print_night(manifest, night.output.path)


@app.command()
def autotune(
    model: Annotated[str, typer.Argument(help="A model, in place of the configured one.")] = "",
    config: Annotated[
        Path | None, typer.Option("--config", help="The night's TOML; its log and index give the pairs.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help='Take the pairs from a JSONL of {"query", "passage"} instead.'),
    ] = None,
    run_date: Annotated[
        datetime.datetime | None,
        typer.Option(
            "--run-date", formats=["%Y-%m-%d"], help="Last day of the log's window; default: yesterday."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure which engine runs a model fastest here without ranking otherwise; backend = "auto" takes it."""
    from pipelines import report_tuning, tuning
    from pipelines.preparation import open_source

    with _errors():
        held = load_config(config) if config else Config()
        scoring = dataclasses.replace(held.scoring, model=model) if model else held.scoring
        if pairs:
            groups = tuning.read_pairs(pairs)
        elif config:
            groups = tuning.sample(held, open_source(held), run_date=_day(run_date))
        else:
            raise ConfigError("nothing to measure by: give --config FILE of the night, or --pairs FILE")
        with report_tuning.trying(show=not (quiet or as_json)) as tell:
            found = tuning.measure(scoring, groups, on_measured=tell)
        tuning.keep(scoring, found)
    if as_json:
        typer.echo(json.dumps(tuning.plain(found)))
    elif not quiet:
        report_tuning.print_tuning(found)


@app.command()
def show(
    query: Annotated[
        str, typer.Argument(help="The query, as typed; case and closing punctuation do not matter.")
    ],
    run: Annotated[Path, typer.Option("--run", help="Output folder of the nightly job.")],
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="A published run; default: the newest.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many rows to show.")] = 10,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Show how HOP was found (query -> entity -> passage), and the evidence."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a query's list before and after, with scores and tags."""
    from pipelines.published import read_query

    with _errors():
        found = read_query(str(run), query, run_id=run_id)
    if as_json:
        typer.echo(
            json.dumps(
                {"query": found.query, "run_id": found.run_id, "rows": found.rows[:top]}, ensure_ascii=False
            )
        )
    else:
        report.print_query(found, top=top, explain=explain)


@app.command()
def publish(
    to: Annotated[str, typer.Option("--to", help=TO_HELP)],
    run: Annotated[
        str, typer.Argument(help="Output folder of the nightly job; not needed with --rollback.")
    ] = "",
    alias: Annotated[str, typer.Option("--alias", help="The alias that readers ask.")] = "nightrank",
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="A published run; default: the newest.")
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Point the alias back at the index that was served before.")
    ] = False,
    keep: Annotated[int, typer.Option("--keep", min=0, help="Older indices kept, to roll back to.")] = 2,
    ca_file: Annotated[str, typer.Option("--ca-file", help=CA_HELP)] = "",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Publish a run's reranked lists into Elasticsearch: a new index, verified, then an atomic alias swap."""
    with _errors():
        from pipelines import publish_elasticsearch, report_cluster, store
        from pipelines.es_write import open_cluster
        from schemas.manifest import ManifestError

        if bool(run) == rollback:
            raise ConfigError("give RUN, the output folder of the nightly job, or --rollback (and no RUN)")
        cluster = open_cluster(to, ca_file=ca_file)
        if rollback:
            back = publish_elasticsearch.rollback(cluster, alias)
            _print(back, report_cluster.print_rolled_back, quiet=quiet, as_json=as_json)
            return
        manifest = store.find_run(run, run_id) if run_id else store.latest(run)
        if manifest is None:
            raise ManifestError(f"no published run in {run}: {store.join(run, 'latest.json')} is not there")
        with report.counter("Publishing", unit="queries", show=not (quiet or as_json)) as count:
            done = publish_elasticsearch.publish(
                cluster, run, manifest, alias=alias, keep=keep, on_progress=count
            )
    _print(done, report_cluster.print_published, quiet=quiet, as_json=as_json)


@app.command()
def load(
    path: Annotated[
        str, typer.Argument(help="A corpus (BEIR folder, JSONL) or a query log (JSONL, Parquet).")
    ],
    to: Annotated[str, typer.Option("--to", help=TO_HELP)],
    index: Annotated[str, typer.Option("--index", help="Name of the index to make.")],
    replace: Annotated[bool, typer.Option("--replace", help="Remove an index of that name first.")] = False,
    ca_file: Annotated[str, typer.Option("--ca-file", help=CA_HELP)] = "",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Put a corpus or a query log into Elasticsearch, for trying Nightrank out against a cluster."""
    with _errors():
        from pipelines import load_elasticsearch, report_cluster
        from pipelines.es_write import open_cluster

        cluster = open_cluster(to, ca_file=ca_file)
        with report.counter("Loading", unit="documents", show=not (quiet or as_json)) as count:
            done = load_elasticsearch.load(cluster, path, index=index, replace=replace, on_progress=count)
    _print(done, report_cluster.print_loaded, quiet=quiet, as_json=as_json)


def _day(run_date: datetime.datetime | None) -> datetime.date:
    """The day that was given, or yesterday."""
    if run_date:
        return run_date.date()
    return datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)


def _print(done: Any, show: Callable[[Any], None], *, quiet: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(done._asdict(), ensure_ascii=False))
    elif not quiet:
        show(done)


@contextmanager
def _errors() -> Iterator[None]:
    """Turn errors that a user can act on into a message and an exit code; let defects show their traceback."""
    from pipelines.published import QueryNotFound
    from pipelines.sources import SourceError
    from pipelines.store import Locked, OutputError
    from pipelines.verify import NightError
    from rerank_core.calibration import CalibrationError
    from rerank_core.fusion import FusionError
    from rerank_core.judgements import JudgementError
    from rerank_core.scoring.scorer import MissingEngine, ModelError, ScoringFailed
    from rerank_core.training.curriculum import TrainingError
    from schemas.manifest import ManifestError

    codes: list[tuple[type[Exception], int]] = [
        (Locked, EXIT_LOCKED),
        (OutputError, EXIT_USAGE),
        (ConfigError, EXIT_USAGE),
        (NightError, EXIT_UNPUBLISHED),
        (ScoringFailed, EXIT_UNPUBLISHED),
        (TrainingError, EXIT_UNPUBLISHED),
        (SourceError, EXIT_INPUT),
        (ModelError, EXIT_INPUT),
        (MissingEngine, EXIT_INPUT),
        (ManifestError, EXIT_INPUT),
        (JudgementError, EXIT_INPUT),
        (CalibrationError, EXIT_INPUT),
        (FusionError, EXIT_INPUT),
        (QueryNotFound, EXIT_INPUT),
    ]
    try:
        yield
    except tuple(kind for kind, _ in codes) as error:
        report.print_error(str(error))
        raise typer.Exit(next(code for kind, code in codes if isinstance(error, kind))) from None


app.command()(_errors()(cli_train.train))
app.command()(_errors()(cli_evaluate.evaluate))
app.command()(_errors()(cli_calibrate.calibrate))
app.command()(_errors()(cli_fuse.fuse))


def main() -> None:
    """Entry point of the `nightrank` command."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("pipelines").setLevel(logging.INFO)
    # Beam says this at every import, of a Google client library that only BigQuery users need.
    logging.getLogger().addFilter(lambda record: not record.getMessage().startswith("apitools not found"))
    app()


if __name__ == "__main__":
    main()
