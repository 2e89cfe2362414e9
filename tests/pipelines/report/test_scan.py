"""What is read of tonight's lists: those of an earlier night say nothing of tonight's scores."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.report.sample import Run
from pipelines.report.scan import scan
from pipelines.storage.runs import find_run
from tests.support.published_run import publish_run, rewrite


def test_scores_and_moves_are_of_the_lists_that_tonight_made(tmp_path: Path) -> None:
    manifest = publish_run(tmp_path, run_id="2026-cut", queries=40, shards=2, results=3)
    ids = sorted(
        query
        for path in (tmp_path / manifest.tables["reranked"].path).glob("*.parquet")
        for query in set(pq.read_table(path)["query_id"].to_pylist())
    )

    def mostly_stale(table: pa.Table) -> pa.Table:
        kept = pc.is_in(table["query_id"], pa.array(ids[10:]))
        dates = pc.if_else(kept, pa.scalar("2026-03-01"), pa.scalar(None, pa.string()))
        at = table.schema.get_field_index("stale_since")
        return table.set_column(at, table.schema.field(at), dates)

    rewrite(tmp_path, manifest, "reranked", mostly_stale)
    cut = Run(str(tmp_path), find_run(str(tmp_path), manifest.run_id))
    positives = {query: {"nothing": 1} for query in ids}
    found = scan(cut, cut, qrels=positives)
    assert sum(found.scores) == sum(found.last_scores) == 10 * 3
    assert found.common == found.unmoved == 10
    assert found.judged is not None
    assert len(found.judged.after) == 40  # readers get all of them
