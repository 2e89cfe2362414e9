"""The command line: `nightrank nightly`, `evaluate`, `train` ..., one file per command.

Exit codes: 0 success; 2 the call or the configuration is wrong; 3 an input cannot be used (log, index, model,
judgements, a published run, a cluster); 4 another run is writing to the output folder; 5 the night ran but may not be
published, or could not be published back, a training failed, a candidate model was not promoted, or the disk or the
memory is full; 130 interrupted by Ctrl-C, 143 by SIGTERM; 1 anything else, which is a defect: the traceback is printed.
A reader of the output that goes away (`| head`) changes nothing.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import pipelines
from pipelines.cli import (
    autotune,
    calibrate,
    cluster,
    console,
    diff,
    evaluate,
    export,
    fuse,
    import_,
    index,
    leaving,
    models,
    nightly,
    promote,
    release,
    report,
    rollback,
    runs,
    show,
    sql,
    train,
    verify,
)
from rerank_core.errors import ConfigError
from rerank_core.files import is_address, not_here

app = typer.Typer(
    name="nightrank",
    help="Reranks a search index overnight: query log and BM25 candidates in, versioned Parquet out.",
    epilog="Start with `nightrank index CORPUS --to DIR`, then `nightrank nightly --config FILE`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    index.index,
    nightly.nightly,
    autotune.autotune,
    show.show,
    runs.runs,
    diff.diff,
    verify.verify,
    sql.sql,
    rollback.rollback,
    report.report,
    release.release,
    cluster.publish,
    cluster.load,
    train.train,
    models.models,
    promote.promote,
    evaluate.evaluate,
    calibrate.calibrate,
    fuse.fuse,
    export.export,
    import_.import_,
)
WRITTEN = ("to", "work", "plot", "profile")
"""Names of the options that are a Path which is written; others are read."""


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


def _with_exit_codes(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with its errors printed as messages and turned into exit codes; a defect keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        leaving.begin(quiet=bool(options.get("quiet")))
        try:
            _refuse_addresses(options)
            command(*args, **options)
        except BaseException as error:  # a panic of a native library is no Exception
            ended = leaving.message_of(error)
            if ended is None:
                raise
            code, message = ended
            console.print_error(message)
            raise typer.Exit(code) from None

    return run


def _refuse_addresses(options: Mapping[str, Any]) -> None:
    """Refuse an address of an object store as a Path: what may be one is a string.

    Raises:
        ConfigError: naming the option and the remedy.
    """
    for name, value in options.items():
        for path in value if isinstance(value, list | tuple) else (value,):
            if isinstance(path, Path) and is_address(path):
                raise ConfigError(f"{name.replace('_', '-')}: {not_here(path, written=name in WRITTEN)}")


for _command in COMMANDS:
    app.command(_command.__name__.strip("_"))(_with_exit_codes(_command))  # import is a keyword


def _is_told(record: logging.LogRecord) -> bool:
    """Whether a record is for users: Beam logs a missing library of BigQuery's, and the traceback of what it raises."""
    of_beam = record.name.startswith("apache_beam") and record.levelno >= logging.ERROR
    message = record.getMessage()
    return not (
        of_beam or message.startswith("apitools not found") or "No semi_persistent_directory found" in message
    )


def main() -> None:
    """Run the command that the shell asks for."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("pipelines").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_told)
    app()
