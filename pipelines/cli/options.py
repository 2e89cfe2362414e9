"""Options that several commands share, and the progress of those that score judged sets."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import console
from pipelines.sources import check_kind
from rerank_core.config.backends import cross_encoders
from rerank_core.config.night import Config, load_config
from rerank_core.errors import ConfigError

Count = Callable[[int], None]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
RunDate = Annotated[
    datetime.datetime | None,
    typer.Option(
        "--run-date", formats=["%Y-%m-%d"], help="Last day of the log's window; default: yesterday (UTC)."
    ),
]

Model = Annotated[str, typer.Argument(help="A cross-encoder's folder, or default (the one that ships).")]
Sets = Annotated[list[Path], typer.Argument(metavar="SET...", help="Folders in BEIR's layout.")]
Backend = Annotated[str, typer.Option("--backend", help=f"One of {', '.join(cross_encoders())}.")]
Split = Annotated[str, typer.Option("--split", help="Split of the queries and judgements.")]
TopK = Annotated[int, typer.Option("--top-k", min=1, help="Number of candidates, BM25's best.")]
Own = Annotated[bool, typer.Option("--own", help="Rank a question's own candidates, if it has some.")]
MinRelevance = Annotated[
    list[str] | None,
    typer.Option("--min-relevance", help="Lowest relevant grade: 2, or for one set trec_dl19=2. Repeatable."),
]
MaxLength = Annotated[int, typer.Option("--max-length", min=8, help="Longest input of a model in tokens.")]
MaxQueries = Annotated[
    int, typer.Option("--max-queries", min=0, help="Queries of a set, drawn by hash; 0: all.")
]
Work = Annotated[
    Path | None,
    typer.Option("--work", help="Folder that caches the sets' indices, and scores, for the next call."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Store nothing.")]


def not_empty(value: str | None) -> str | None:
    """An argument or option as it was given, a folder without a slash at its end.

    Raises:
        BadParameter: it is empty, as a script's variable that is not set: neither a default nor this folder is meant.
    """
    if value is not None and not value.strip():
        raise typer.BadParameter("it is empty; give a value, or leave it out if there is a default")
    return value if value is None else value.rstrip("/") or "/"


OUTPUT_HELP = "Output folder of the nightly job: local, gs:// or s3://."
Output = Annotated[str, typer.Argument(metavar="OUTPUT", help=OUTPUT_HELP, callback=not_empty)]
RunId = Annotated[
    str | None,
    typer.Option(
        "--run-id", help="A published run; default: the newest.", show_default=False, callback=not_empty
    ),
]

SetLatest = Annotated[
    bool,
    typer.Option("--set-latest", help="Point latest.json at this run, even if it names one of a later date."),
]
AnyRunId = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        help="A run, published or held; default: the newest.",
        show_default=False,
        callback=not_empty,
    ),
]


def min_relevance(specs: Sequence[str]) -> dict[str, int]:
    """Lowest relevant grades by set from "2" or "SET=2"; "" is every other set.

    Raises:
        ConfigError: a spec without a grade.
    """
    grades: dict[str, int] = {}
    for spec in specs:
        name, _, grade = spec.rpartition("=")
        if not (grade.isascii() and grade.isdigit()) or int(grade) < 1:
            raise ConfigError(f"--min-relevance {spec!r} has no grade; give 2, or SET=2")
        grades[name] = int(grade)
    return grades


@contextlib.contextmanager
def set_progress(*, show: bool) -> Iterator[tuple[Count, Count]]:
    """Callbacks that count indexed passages and scored pairs, one bar at a time: each closes the one before."""
    with contextlib.ExitStack() as stack:

        def counting(what: str, unit: str) -> Count:
            counters: list[Count] = []

            def count(more: int) -> None:
                if not counters:
                    stack.close()
                    counters.append(stack.enter_context(console.counter(what, unit=unit, show=show)))
                counters[0](more)

            return count

        yield counting("Indexing", "passages"), counting("Scoring", "pairs")


def load_night(path: Path) -> Config:
    """A night's configuration, its source included.

    Raises:
        ConfigError: it cannot be read, or names an unknown source.
    """
    config = load_config(path)
    check_kind(config)
    return config


def day_or_yesterday(run_date: datetime.datetime | None) -> datetime.date:
    """The day that was given, or yesterday."""
    if run_date:
        return run_date.date()
    return datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
