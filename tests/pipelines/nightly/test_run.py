"""Whole nights on Beam's local runner, over a real index, with a scorer that needs no model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import LocalIndex
from rerank_core.candidates.decomposition import decompose
from rerank_core.features.render import passage_text, render
from rerank_core.scoring.reuse import input_fingerprint
from schemas.tables import TABLES
from schemas.tags import Tags
from tests.conftest import MakeConfig, Night
from tests.support.fakes import FakeScorer, fake, forbidden
from tests.support.invariants import assert_balanced, assert_truthful
from tests.support.tiny import (
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
