"""Where a night's queries and candidates come from.

A source is two functions: the events of the log, and the candidates of queries. `local.py` is the embedded one;
another one drops in by implementing this protocol and adding its kind to `open_source` in pipelines/nightly/prepare.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import apache_beam as beam

    from schemas.records import Document, Query, Rejected


class Source(Protocol):
    """A picklable description; workers open their own readers from it."""

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it: locations and content fingerprints, never secrets.

        Raises:
            SourceError: the log or the index is missing, damaged or of another version.
        """
        ...

    def events(self) -> beam.PTransform:
        """PBegin -> PCollection[LogEvent | Rejected]: every record of the log, one way or the other."""
        ...

    def candidates(self, queries: Sequence[Query], *, top_k: int) -> list[list[Document] | Rejected]:
        """For each query, in order, its documents best first, or why there are none to be had."""
        ...
