"""What a source of queries and candidates must offer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import apache_beam as beam

    from schemas.records import Document, Query, Rejected


class Source(Protocol):
    """A query log and an index, as a picklable description; workers open their own readers from it.

    It is made by `SourceClass(config, window=window)`, which raises ConfigError for a key that it needs and that is not
    set. Events outside `window`, [start, end) in UTC, need not be read; None means all of them.
    """

    def describe(self) -> dict[str, Any]:
        """What the manifest shows of it: locations and content fingerprints, never secrets.

        Values of keys that end in "_fingerprint" are part of the run's id.

        Raises:
            SourceError: the log or the index is missing, damaged or of another version.
        """
        ...

    def events(self) -> beam.PTransform:
        """PBegin -> PCollection[LogEvent | Rejected], one for each record of the log."""
        ...

    def candidates(self, queries: Sequence[Query], *, top_k: int) -> list[list[Document] | Rejected]:
        """For each query, in order, at most `top_k` documents, best first, or why there are none."""
        ...
