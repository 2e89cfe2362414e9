"""ReadQueryLog over files of every format, most of them junk: nothing is lost, whatever stands in them."""

from __future__ import annotations

import datetime
import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.testing.util import assert_that

from pipelines.querylog.read_log import ReadQueryLog
from pipelines.sources.local.source import LocalSource
from rerank_core.config.labels import Labels
from rerank_core.config.night import Config
from rerank_core.config.source import Privacy, Source
from rerank_core.values import identifier, scalar

VALUES: list[Any] = [
    None, True, 0, 17, 17.0, 1.5, float("nan"), float("inf"), 10**30, "", "x", "\ud800", "\x00", "\u200b", "[", "[]",
    "1793110411145", 1772445600, "2026-03-02T10:00:00Z", [], ["x"], ["x", "x", "y"], [None], [[]], {}, {"x": "Jo"},
    json.loads("[" * 400 + "]" * 400),
]  # fmt: skip
FIELDS = ("timestamp", "query", "user", "clicks", "impressions")
GOOD = {
    "timestamp": "2026-03-02T10:00:00Z",
    "query": "dune",
    "user": "u",
    "clicks": ["d"],
    "impressions": ["d"],
}
WINDOW = (
    datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC),
    datetime.datetime(2026, 3, 3, tzinfo=datetime.UTC),
)


def junk(folder: Path) -> int:
    """Files of every format in `folder`; returns how many events they hold."""
    events = [GOOD | {field: value} for field, value in itertools.product(FIELDS, VALUES)]
    raw = [json.dumps(value) for value in [*events, *VALUES]] + [
        "{",
        "[" * 5000,
        f'{{"query": {"9" * 5000}}}',
    ]
    (folder / "a.jsonl").write_text("\ufeff" + "\r\n".join(raw), encoding="utf-8")
    cells = [str(value) for value in VALUES if isinstance(value, str | int) and value != "\ud800"]
    rows = [
        "\t".join({**GOOD, "clicks": "d", "impressions": "d", f: c}.values()) for f in FIELDS for c in cells
    ]
    (folder / "b.tsv.gz").write_bytes(gzip.compress("\n".join(["\t".join(FIELDS), *rows]).encode()))
    searches = [f"{n}\t{cell}\t2026-03-02 10:00:00\t1\t{cell}" for n, cell in enumerate(cells)]
    header = "AnonID\tQuery\tQueryTime\tItemRank\tClickURL"
    (folder / "c.tsv").write_text("\n".join([header, *searches]), encoding="utf-8")
    columns = {
        "timestamp": [1772445600.0, None],
        "query": ["dune", None],
        "user": [17.0, None],
        "clicks": ["d", "[d]"],
    }
    pq.write_table(pa.table(columns), folder / "d.parquet")
    queries = [
        {"query_id": f"q{n}", "user_query": "dune", "timestamp": value} for n, value in enumerate(VALUES)
    ]
    clicks = [
        {"query_id": f"q{n}", "action_name": "click", "event_attributes": {"object": {"object_id": value}}}
        for n, value in enumerate(VALUES)
    ]
    (folder / "e.json").write_text("\n".join(json.dumps(row) for row in queries), encoding="utf-8")
    (folder / "f.json").write_text("\n".join(json.dumps(row) for row in clicks), encoding="utf-8")
    return len(raw) + len(rows) + len(searches) + 2 + len(queries) + sum(not is_id(value) for value in VALUES)


def is_id(value: Any) -> bool:
    """Whether a click names a document by it, and thus is part of its query's event."""
    try:
        identifier(scalar(value))
    except ValueError:
        return False
    return True


def test_every_record_of_every_format_is_accounted_for(tmp_path: Path) -> None:
    events = junk(tmp_path)
    config = Config(
        source=Source(log=str(tmp_path), index="not opened"),
        privacy=Privacy(max_events_per_user=10**6),
        labels=Labels(debias=True),
    )

    def balanced(found: list[tuple[tuple[str, str], float]]) -> None:
        tallies = Counter[str]()
        for (_, what), amount in found:
            tallies[what] += amount  # type: ignore[assignment]
        kinds = ("outside_window", "rejected", "below_min_count", "below_min_users", "capped", "kept")
        assert tallies["events_read"] == events == tallies["in"]
        assert sum(tallies[f"events_{kind}"] for kind in kinds) == events
        assert tallies["rejected"] == tallies["events_rejected"]

    def clicked_once(queries: list[Any]) -> None:
        for query in queries:
            assert all(clicks <= query.count for _, clicks in query.clicks)

    def explained(letters: list[Any]) -> None:
        assert all(letter.detail and "Jo" not in letter.detail for letter in letters)
        assert len({letter.record for letter in letters}) == len(letters)

    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        read = pipeline | ReadQueryLog(LocalSource(config), WINDOW, config)
        assert_that(read.tallies, balanced, label="tallies")
        assert_that(read.queries, clicked_once, label="queries")
        assert_that(read.rejected, explained, label="rejected")
