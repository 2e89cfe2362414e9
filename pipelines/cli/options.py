"""Options that several commands have, and what they have in common on judged sets."""

from __future__ import annotations

import contextlib
import datetime
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipelines.sources import check_kind
from rerank_core.config.backends import cross_encoders
from rerank_core.config.night import Config, load_config
from rerank_core.errors import ConfigError

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]

Model = Annotated[str, typer.Argument(help="A cross-encoder's folder, or default: the one that ships.")]
Sets = Annotated[list[Path], typer.Argument(metavar="SET...", help="Folders in BEIR's layout.")]
Backend = Annotated[str, typer.Option("--backend", help=f"One of {', '.join(cross_encoders())}.")]
Split = Annotated[str, typer.Option("--split", help="Which queries and judgements.")]
TopK = Annotated[int, typer.Option("--top-k", min=1, help="Candidates: BM25's best so many.")]
Own = Annotated[bool, typer.Option("--own", help="Candidates: a question's own list, where it has one.")]
MinRelevance = Annotated[
    list[str] | None,
    typer.Option(
        "--min-relevance", help="Lowest grade that is relevant, as 2, or of one set as trec_dl19=2."
    ),
]
MaxLength = Annotated[int, typer.Option("--max-length", min=8, help="Tokens that a model reads.")]
MaxQueries = Annotated[
    int, typer.Option("--max-queries", min=0, help="Queries of a set, drawn by hash; 0: all.")
]
Work = Annotated[
    Path | None,
    typer.Option("--work", help="Folder that keeps the sets' indices, and scores, for the next time."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Store nothing.")]


def check_names(paths: Sequence[Path]) -> None:
    """Refuse sets that could not be told apart.

    Raises:
        ConfigError: two folders have one name.
    """
    names = [path.resolve().name for path in paths]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two sets are called {doubled.pop()!r}; give each once, or rename a folder")


def grade(specs: Sequence[str], name: str) -> int:
    """The lowest relevant grade of a set: its own, else the one for all, else 1.

    Raises:
        ConfigError: a spec holds no grade.
    """
    grades: dict[str, int] = {}
    for spec in specs:
        which, _, grade = spec.rpartition("=")
        if not (grade.isascii() and grade.isdigit()) or int(grade) < 1:
            raise ConfigError(f"--min-relevance {spec!r} holds no grade; give 2, or SET=2")
        grades[which] = int(grade)
    return grades.get(name, grades.get("", 1))


@contextlib.contextmanager
def index_folder(work: Path | None) -> Iterator[Path]:
    """Where indices are built: the given folder, or one that goes when we do."""
    if work:
        yield work
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


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
