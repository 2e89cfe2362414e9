"""Nights after the first one: what they reuse, what they score again, and which run is in service."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from pipelines.storage import runs
from tests.conftest import MakeConfig, Night
from tests.support.fakes import FakeScorer, fake, forbidden
from tests.support.invariants import assert_balanced, assert_truthful, model_input
from tests.support.tiny import (
    CORPUS,
    DAY,
    QUERIES,
    published_bytes,
    rows,
    write_lines,
)


def test_the_second_night_scores_nothing_again(night: Night, started: Path, make_config: MakeConfig) -> None:
    config = make_config(
        source={"log": night.config.source.log},
        output={"max_rejected_share": 0.5, "queries_per_shard": 4},  # other shards, same scores
    )
    second = run(config, run_date=DAY, load=forbidden())
    assert second.previous_run_id == night.manifest.run_id != second.run_id
    pairs = second.balance.pairs
    assert (pairs["published"], pairs["reused"]) == (0, night.manifest.balance.pairs["read"])
    assert second.degraded == {"truncated_pairs": 0, "queries_without_candidates": 1}
    changed = {"reused"}
    before, after = (
        {(r["query_id"], r["passage_id"]): {k: v for k, v in r.items() if k not in changed} for r in found}
        for found in (rows(started, night.manifest), rows(started, second))
    )
    assert after == before
    assert all(row["reused"] for row in rows(started, second))
    assert published_bytes(night.output, night.manifest) == published_bytes(started, night.manifest)


def test_another_model_reuses_nothing_and_says_so(
    night: Night, started: Path, make_config: MakeConfig
) -> None:
    manifest = run(make_config(), run_date=DAY, load=fake("other model"))
    assert manifest.balance.pairs["reused"] == 0
    assert manifest.previous_run_id is None
    assert "another model" in str(manifest.degraded["reuse"])
    assert night.manifest.run_id in str(manifest.degraded["reuse"])
    assert_truthful(rows(started, manifest), FakeScorer("other model"))


def test_a_changed_document_is_scored_again_and_nothing_stale_is_read(
    night: Night, started: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    text = "Tacoma is a port. Its harbour is deep."
    corpus = [
        d | {"text": text, "sentences": [text]} if d["_id"] == "tacoma" else d
        for d in CORPUS
        if d["_id"] != "snow"
    ]
    build_index(write_lines(tmp_path / "corpus.jsonl", corpus), tmp_path / "index")
    seen = tmp_path / "seen.jsonl"
    config = make_config(source={"index": str(tmp_path / "index")}, evidence={"top_n": 0})
    manifest = run(config, run_date=DAY, load=fake(seen=str(seen)))
    published = rows(started, manifest)
    assert_truthful(published, FakeScorer())
    known = {row["input_fingerprint"] for row in rows(night.output, night.manifest)}
    assert {row["reused"] for row in published} == {True, False}
    assert all(row["reused"] == (row["input_fingerprint"] in known) for row in published)
    fresh = [row for row in published if not row["reused"]]
    changed = [row for row in published if row["doc_id"] == "tacoma"]
    assert changed
    assert all(row in fresh for row in changed)
    scored = {tuple(json.loads(line)) for line in seen.read_text().splitlines()}
    assert scored == {model_input(row) for row in fresh}
    untouched = [row for row in published if row["query"] == "solaris novel"]
    assert all(row["reused"] for row in untouched)


def test_what_was_cut_is_counted_and_scored_again(
    night: Night, started: Path, make_config: MakeConfig
) -> None:
    first = run(make_config(ranking={"top_n": 1}, mining={"enabled": False}), run_date=DAY, load=fake())
    pairs = first.balance.pairs
    assert len(rows(started, first)) == len(QUERIES) == pairs["reused"]
    assert pairs["below_top_n"] == pairs["read"] - len(QUERIES)
    assert_balanced(first)
    assert (first.tables["hard_negatives"].rows, first.mining) == (0, {"kept": {}, "rejected": {}})
    again = run(make_config(ranking={"top_n": 2}), run_date=DAY, load=fake())
    assert again.stages["ReuseScores"]["reused"] == len(QUERIES)
    assert again.stages["ScoreCandidates"]["out"] == pairs["below_top_n"]
    assert again.tables["hard_negatives"].rows > 0  # mined from the whole lists, not from the cut ones
    assert_balanced(again)


def test_an_older_date_is_published_and_leaves_the_newest_in_service(
    night: Night, started: Path, make_config: MakeConfig
) -> None:
    config = make_config(source={"log": night.config.source.log}, output={"max_rejected_share": 0.5})
    older = run(config, run_date=DAY - datetime.timedelta(days=1), load=fake())
    assert runs.latest(str(started)) == night.manifest
    assert older.previous_run_id == night.manifest.run_id  # its texts are mostly the same
    assert older.balance.pairs["reused"] > 0
    listed = pq.read_table(started / "reranked")
    assert set(zip(*(listed[name].to_pylist() for name in ("run_date", "run_id")), strict=True)) == {
        (night.manifest.run_date, night.manifest.run_id),
        (older.run_date, older.run_id),
    }
    again = run(config, run_date=DAY - datetime.timedelta(days=1), load=fake(), set_latest=True)
    assert again.run_id == older.run_id
    assert runs.latest(str(started)) == again
