"""Whole nights on Beam's local runner, over a real index, with a scorer that needs no model."""

from __future__ import annotations

import datetime
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import LocalIndex, build_index
from pipelines.storage import runs
from rerank_core.candidates.decomposition import decompose
from rerank_core.errors import ConfigError, NightError, ScoringFailed
from rerank_core.features.render import passage_text, render
from rerank_core.scoring.reuse import input_fingerprint
from schemas.manifest import Manifest
from schemas.tables import TABLES
from schemas.tags import Tags
from tests.conftest import MakeConfig, Night
from tests.support.fakes import FakeScorer, fake, forbidden
from tests.support.tiny import (
    CORPUS,
    DAY,
    GOOD_LOG,
    QUERIES,
    REJECTS,
    Tiny,
    event,
    published_bytes,
    read_table,
    rows,
    write_lines,
)


def model_input(row: dict[str, Any]) -> tuple[str, str]:
    """What the model must have been given for a published row."""
    return tuple(render(row["query"], passage_text(row["title"], row["text"]), Tags.from_row(row)))  # type: ignore[return-value]


def assert_truthful(published: list[dict[str, Any]], scorer: FakeScorer) -> None:
    """No row carries a score or a fingerprint of anything but its own input."""
    for row in published:
        query, passage = model_input(row)
        assert row["logit"] == scorer.score([(query, passage)])[0], row
        fingerprint = input_fingerprint(query, passage, model_fingerprint=scorer.fingerprint)
        assert row["input_fingerprint"] == fingerprint
        assert row["model_fingerprint"] == scorer.fingerprint


def assert_balanced(manifest: Manifest) -> None:
    for counts in (manifest.balance.events, manifest.balance.queries, manifest.balance.pairs):
        assert counts["read"] == sum(count for what, count in counts.items() if what != "read"), counts


@pytest.fixture
def started(night: Night, tmp_path: Path) -> Path:
    """A copy of the output folder that already holds the whole log's night."""
    shutil.copytree(night.output, tmp_path / "output")
    return tmp_path / "output"


# --- one night


def test_every_record_is_accounted_for(night: Night, tiny: Tiny) -> None:
    found = LocalIndex(tiny.index).search(QUERIES, top_k=100)
    pairs = sum(map(len, found))
    assert night.manifest.balance.events == {
        "read": 14,
        "kept": 7,
        "outside_window": 2,
        "below_min_count": 0,
        "below_min_users": 0,
        "capped": 0,
        "rejected": 5,
    }
    assert night.manifest.balance.queries == {"read": 6, "published": 5, "stale": 0, "rejected": 1}
    assert night.manifest.balance.pairs == {
        "read": pairs,
        "published": pairs,
        "reused": 0,
        "pruned": 0,
        "below_top_n": 0,
        "rejected": 0,
        "not_reached": 0,
    }
    log = night.manifest.stages["ReadQueryLog"]
    assert (log["in"], log["out"], log["rejected"], log["events_rejected"]) == (14, 6, 5, 5)
    published = {(row["query"], row["doc_id"]) for row in rows(night.output, night.manifest)}
    assert published == {(q, d.doc_id) for q, docs in zip(QUERIES, found, strict=True) for d in docs}


def test_every_dead_letter_names_its_record_and_reason(night: Night) -> None:
    letters = rows(night.output, night.manifest, "dead_letters")
    assert night.manifest.rejected == REJECTS
    assert {f"{row['stage']}/{row['reason']}" for row in letters} == set(REJECTS)
    assert all(row["record"] and row["detail"] for row in letters)
    places = {row["reason"]: row["record"] for row in letters if row["unit"] == "event"}
    assert places == {
        "empty_query": "log.jsonl:9",
        "query_too_long": "log.jsonl:10",
        "bad_json": "log.jsonl:11",
        "missing_query": "log.jsonl:12",
        "bad_timestamp": "log.jsonl:13",
    }


def test_rows_hold_what_the_model_said_of_them(night: Night) -> None:
    published = rows(night.output, night.manifest)
    assert_truthful(published, FakeScorer())
    assert read_table(night.output, night.manifest, "reranked").schema.metadata[b"run_id"].decode() == (
        night.manifest.run_id
    )
    assert not any(row["reused"] for row in published)
    for text in QUERIES:
        own = [row for row in published if row["query"] == text]
        assert [row["rank"] for row in own] == list(range(1, len(own) + 1))
        assert sorted(row["rank_before"] for row in own) == list(range(1, len(own) + 1))
        logits = [row["logit"] for row in own]
        assert logits == sorted(logits, reverse=True)


def test_null_stands_only_where_a_schema_allows_it(night: Night) -> None:
    for name, schema in TABLES.items():
        table = read_table(night.output, night.manifest, name)
        assert table.num_rows, name
        assert table.schema.equals(schema)
        for field in schema:
            assert field.nullable or not table[field.name].null_count, (name, field.name)


def test_negatives_are_candidates_of_their_query_and_never_clicked(night: Night) -> None:
    ranked = {
        (row["query_id"], row["passage_id"]): row["logit"] for row in rows(night.output, night.manifest)
    }
    negatives = rows(night.output, night.manifest, "hard_negatives")
    clicked = {
        "Who wrote Dune": {"dune", "herbert"},
        "Where was Frank Herbert born": {"herbert"},
        "solaris novel": {"solaris"},
        "Seattle or Tacoma": {"seattle"},
    }
    assert {row["query"] for row in negatives} == set(clicked)
    for row in negatives:
        assert row["positive_id"] in clicked[row["query"]]
        assert row["negative_id"] not in clicked[row["query"]]
        assert row["negative_logit"] == ranked[row["query_id"], row["negative_id"]]
        assert row["positive_logit"] == ranked[row["query_id"], row["positive_id"]]
    pairs = rows(night.output, night.manifest, "training_pairs")
    assert sum(row["label"] == 0 for row in pairs) == len(negatives)
    assert sum(row["label"] == 1 for row in pairs) == len(
        {(r["query_id"], r["positive_id"]) for r in negatives}
    )
    assert night.manifest.mining["kept"] == Counter(row["kept_by"] for row in negatives)


# --- the next nights


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


# --- units, plain mode, metrics


def test_sentences_with_judgements(make_config: MakeConfig, tmp_path: Path) -> None:
    queries = [{"_id": "q1", "text": "WHO wrote dune"}, {"_id": "q2", "text": "never asked"}]
    write_lines(tmp_path / "queries.jsonl", queries)
    judged = ["query-id\tcorpus-id\tscore", "q1\tdune\t1", "q1\therbert\t1", "q2\tdune\t1"]
    write_lines(tmp_path / "qrels.tsv", judged)
    units = ["query-id\tcorpus-id\tsentence\tscore", "q1\tdune\t0\t1"]
    write_lines(tmp_path / "sentences.tsv", units)
    log = write_lines(tmp_path / "log.jsonl", [*GOOD_LOG, event("qqqq zzzz")])
    config = make_config(
        source={"log": str(log)},  # its last query finds nothing, which does not count as a failure
        candidates={"unit": "sentence"},
        output={"store_text": False},
        evaluation={
            "queries": str(tmp_path / "queries.jsonl"),
            "qrels": str(tmp_path / "qrels.tsv"),
            "sentence_qrels": str(tmp_path / "sentences.tsv"),
        },
    )
    manifest = run(config, run_date=DAY, load=fake())
    assert_balanced(manifest)
    published = rows(tmp_path / "output", manifest)
    assert {row["title"] for row in published} == {row["text"] for row in published} == {None}
    own = [row for row in published if row["query"] == "Who wrote Dune"]
    assert {"dune#0", "dune#1"} <= {row["passage_id"] for row in own}
    places: dict[str, int] = {}
    for row in own:  # best first: a document's place is that of its first unit
        assert row["doc_rank"] == places.setdefault(row["doc_id"], len(places) + 1)
    before: dict[str, int] = {}
    for row in sorted(own, key=lambda row: row["rank_before"]):
        assert row["doc_rank_before"] == before.setdefault(row["doc_id"], len(before) + 1)
    assert len(before) < len(own)
    assert (manifest.balance.queries["rejected"], manifest.config["output"]["max_rejected_share"]) == (
        1,
        0.05,
    )
    assert set(manifest.metrics) == {"document", "unit"}
    for level in manifest.metrics.values():
        assert level["queries"] == 1  # the query that nobody asked is not held against the night
    first_relevant = min(row["doc_rank"] for row in own if row["doc_id"] in ("dune", "herbert"))
    assert manifest.metrics["document"]["after MRR@10"] == pytest.approx(1 / first_relevant)
    assert manifest.metrics["document"]["before R@10"] == 1
    (unit,) = [row["rank"] for row in own if row["passage_id"] == "dune#0"]
    assert manifest.metrics["unit"]["after MRR@10"] == pytest.approx(1 / unit)


def test_windows_in_plain_mode(make_config: MakeConfig, tmp_path: Path) -> None:
    write_lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "never asked"}])
    write_lines(tmp_path / "qrels.tsv", ["query-id\tcorpus-id\tscore", "q1\tdune\t1"])
    config = make_config(
        candidates={"unit": "window", "window_words": 6, "window_stride": 3},
        tags={"enabled": False},
        log={"min_count": 2},
        # Judgements of other queries than the night's are no reason to lose it.
        evaluation={"queries": str(tmp_path / "queries.jsonl"), "qrels": str(tmp_path / "qrels.tsv")},
    )
    manifest = run(config, run_date=DAY, load=fake())
    assert manifest.balance.events["below_min_count"] == 4
    assert manifest.balance.queries["read"] == 1
    assert_balanced(manifest)
    assert manifest.tagger_fingerprint is None
    assert manifest.metrics == {}
    published = rows(tmp_path / "output", manifest)
    assert_truthful(published, FakeScorer())
    for name in ("hop", "role", "entities", "causal", "reasoning"):
        assert {str(row[name]) for row in published} == {"None"}
    assert "dune#2" in {row["passage_id"] for row in published}
    assert {row["positive_tags"] for row in rows(tmp_path / "output", manifest, "hard_negatives")} == {""}


def test_a_model_that_reads_no_tags_gets_plain_input_and_the_tables_keep_them(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    manifest = run(make_config(tags={"model_input": "plain"}), run_date=DAY, load=fake())
    assert_balanced(manifest)
    for row in rows(tmp_path / "output", manifest):
        plain = render(row["query"], passage_text(row["title"], row["text"]))
        assert row["role"] is not None
        assert row["input_fingerprint"] == input_fingerprint(
            *plain, model_fingerprint=FakeScorer().fingerprint
        )
    pairs = rows(tmp_path / "output", manifest, "training_pairs")
    assert pairs
    assert not any("[HOP" in row["query"] for row in pairs)


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


# --- one night is one set of bytes


def test_the_same_night_gives_the_same_bytes_on_several_processes(
    night: Night, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", str(root))  # workers import the fake scorer by its name
    config = make_config(source={"log": night.config.source.log}, output={"max_rejected_share": 0.5})
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    manifest = run(config, run_date=DAY, load=fake(), beam_flags=flags)
    assert manifest.run_id == night.manifest.run_id
    assert published_bytes(tmp_path / "output", manifest) == published_bytes(night.output, night.manifest)
    assert manifest.balance == night.manifest.balance


# --- nights that may not be published


def test_a_failed_night_leaves_the_last_one_in_service(
    night: Night, started: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in started.rglob("*.*") if path.is_file()}
    with pytest.raises(ScoringFailed, match="broken on purpose"):
        run(make_config(), run_date=DAY, load=fake("new", broken=True))
    assert {path: path.read_bytes() for path in before} == before
    assert runs.latest(str(started)) == night.manifest
    assert runs.table_files(str(started), night.manifest, "reranked")
    manifest = run(make_config(), run_date=DAY, load=fake("new"))
    assert runs.latest(str(started)) == manifest


def test_a_failure_in_a_worker_process_keeps_its_class_and_message(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    flags = ["--direct_num_workers=1", "--direct_running_mode=multi_processing"]
    with pytest.raises(ScoringFailed, match="^the fake model is broken on purpose"):
        run(make_config(), run_date=DAY, load=fake(broken=True), beam_flags=flags)


def test_one_pair_without_a_score_costs_only_itself(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(output={"max_rejected_share": 0.3})
    manifest = run(config, run_date=DAY, load=fake(nan_for="Stanislaw Lem was born", fails_for="Snow falls"))
    letters = rows(tmp_path / "output", manifest, "dead_letters")
    assert {(row["unit"], row["reason"]) for row in letters} == {
        ("pair", "nan_logit"),
        ("pair", "model_error"),
    }
    assert {row["record"].split("/")[1] for row in letters} == {"lem", "snow"}
    assert manifest.balance.pairs["rejected"] == len(letters)
    assert manifest.balance.queries["rejected"] == 0
    assert_balanced(manifest)
    published = rows(tmp_path / "output", manifest)
    assert len(published) == manifest.balance.pairs["published"]
    assert np.isfinite([row["logit"] for row in published]).all()
    assert not {"lem", "snow"} & {row["doc_id"] for row in published}


def test_too_many_rejects_stop_publication(tiny: Tiny, make_config: MakeConfig, tmp_path: Path) -> None:
    output = tmp_path / "dead_letters_and_more"
    config = make_config(source={"log": str(tiny.log)}, output={"path": str(output)})
    with pytest.raises(NightError, match="5 of 14 events were rejected") as raised:
        run(config, run_date=DAY, load=fake())
    assert "output.max_rejected_share = 0.05" in str(raised.value)
    assert runs.latest(str(output)) is None
    left = [path.parent.name for path in output.glob("_staging/**/*") if path.is_file()]
    assert left == ["dead_letters"]  # to look into


def test_a_night_without_queries_says_where_they_went(make_config: MakeConfig, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [event("dune", at="2020-01-01T00:00:00Z"), event("")])
    with pytest.raises(NightError, match="2 events read, 1 outside the window") as raised:
        run(make_config(source={"log": str(log)}), run_date=DAY, load=fake())
    assert "ReadQueryLog/empty_query 1" in str(raised.value)
    assert "--run-date" in str(raised.value)
    assert runs.latest(str(tmp_path / "output")) is None


def test_a_night_whose_queries_find_nothing_is_not_published(make_config: MakeConfig, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", [event("qqqq zzzz")])
    with pytest.raises(NightError, match="none of 1 queries could be reranked: FetchCandidates/no_cand"):
        run(make_config(source={"log": str(log)}), run_date=DAY, load=fake())


# --- nights that do not start


def test_an_unknown_flag_does_not_start(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--direct_num_worker=2"):
        run(make_config(), run_date=DAY, load=fake(), beam_flags=["--direct_num_worker=2"])
    assert not (tmp_path / "output").exists()


def test_second_searches_and_parts_are_part_of_a_night(make_config: MakeConfig, tmp_path: Path) -> None:
    asked = "Who wrote the novel that follows Dune?"
    log = write_lines(tmp_path / "log.jsonl", [event(asked, "messiah"), event("seattle or tacoma")])
    sections = {
        "source": {"log": str(log)},
        "candidates": {"top_k": 6, "second_search": "both", "score_parts": True},
    }
    first = run(make_config(**sections), run_date=DAY, load=fake())
    stage = first.stages["FetchCandidates"]
    assert stage["second_searches"] >= 2
    assert stage["second_searches_failed"] == 0
    assert "second_searches_failed" not in first.degraded
    published = rows(tmp_path / "output", first)
    parts = decompose(asked)
    assert parts
    scorer = FakeScorer()
    for row in published:
        texts = [row["query"], *decompose(row["query"])]
        inputs = [
            tuple(render(text, passage_text(row["title"], row["text"]), Tags.from_row(row))) for text in texts
        ]
        assert row["logit"] == scorer.score(inputs).max()
    assert max(Counter(row["query"] for row in published).values()) == 6

    second = run(make_config(**sections), run_date=DAY, load=forbidden())
    assert second.balance.pairs["reused"] == first.balance.pairs["published"]
    plain = run(make_config(source={"log": str(log)}, candidates={"top_k": 6}), run_date=DAY, load=fake())
    assert plain.balance.pairs["reused"] < first.balance.pairs["published"]  # other inputs for the split one
