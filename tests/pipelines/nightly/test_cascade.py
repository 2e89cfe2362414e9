"""Nights with a cascade: who is pruned, that nothing is lost, and that one night stays one set of bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import night_summary, show
from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import Config, parse_config
from rerank_core.errors import ModelError
from rerank_core.ranking.cascade import DEPTH, in_sample
from schemas.manifest import Manifest
from tests.support.fakes import fake, forbidden
from tests.support.tiny import DAY, event, published_bytes, rows, write_lines
from tests.support.tiny_onnx import write_model

RIVERS = [f"River{n}" for n in range(40)]
QUERIES = [f"Which long river meets the {name.lower()} river" for name in RIVERS[:30]]
SAMPLE = {"enabled": True, "max_loss": 0.2, "sample_queries": 12}


@pytest.fixture(scope="module")
def rivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Passages that every query finds thirty of and more, and a log of the queries, each clicking its river."""
    folder = tmp_path_factory.mktemp("rivers")
    corpus = []
    for n, name in enumerate(RIVERS):
        text = f"The river {name} meets the {RIVERS[n // 2]} river. It is long."
        corpus.append({"_id": name, "title": name, "text": text * (1 + n % 3)})
    build_index(write_lines(folder / "corpus.jsonl", corpus), folder / "index")
    write_lines(folder / "log.jsonl", [event(q, name) for q, name in zip(QUERIES, RIVERS, strict=False)])
    return folder


def config_of(rivers: Path, output: Path, **sections: Any) -> Config:
    raw: dict[str, dict[str, Any]] = {
        "source": {"log": str(rivers / "log.jsonl"), "index": str(rivers / "index")},
        "output": {"path": str(output), "queries_per_shard": 5},
        "tags": {"recogniser": "rules"},
        "cascade": SAMPLE,
    }
    return parse_config({**raw, **{name: raw.get(name, {}) | values for name, values in sections.items()}})


class Pruned:
    """A night with a cascade on BM25 alone."""

    def __init__(self, rivers: Path, output: Path) -> None:
        self.config, self.output = config_of(rivers, output), output
        self.manifest: Manifest = run(self.config, run_date=DAY, load=fake())
        self.rows = rows(output, self.manifest)


@pytest.fixture(scope="module")
def pruned(rivers: Path, tmp_path_factory: pytest.TempPathFactory) -> Pruned:
    return Pruned(rivers, tmp_path_factory.mktemp("pruned") / "output")


def sampled(row: dict[str, Any]) -> bool:
    return in_sample(row["query_id"], share=SAMPLE["sample_queries"] / len(QUERIES))


def test_nothing_is_lost(pruned: Pruned) -> None:
    pairs = pruned.manifest.balance.pairs
    assert pairs["pruned"] == sum(row["logit"] is None for row in pruned.rows) > 100
    assert pairs["read"] == len(pruned.rows) == pairs["pruned"] + pairs["published"]
    assert {row["query"] for row in pruned.rows} == set(QUERIES)
    tally = pruned.manifest.stages["PruneCandidates"]
    assert (tally["in"], tally["pruned"]) == (pairs["read"], pairs["pruned"])
    assert pruned.manifest.stages["ScoreCandidates"]["out"] == pairs["published"]
    assert not pruned.manifest.rejected


def test_the_sample_is_scored_in_full_and_of_the_others_the_best_ten_at_least(pruned: Pruned) -> None:
    by_query: dict[str, list[dict[str, Any]]] = {}
    for row in pruned.rows:
        by_query.setdefault(row["query"], []).append(row)
    full = {query for query, own in by_query.items() if sampled(own[0])}
    assert 5 < len(full) < 20
    for query, own in by_query.items():
        scored = [row for row in own if row["logit"] is not None]
        assert len(scored) >= DEPTH
        assert (len(scored) == len(own)) or query not in full
        assert [row["rank"] for row in own] == list(range(1, len(own) + 1))
        assert all(row["score"] is not None for row in scored)
        assert own[: len(scored)] == scored  # the pruned stand below
        below = [row["bm25_score"] for row in own[len(scored) :]]
        assert below == sorted(below, reverse=True)


def test_the_manifest_tells_the_rule_and_its_loss(pruned: Pruned) -> None:
    record = pruned.manifest.cascade
    assert record is not None
    assert set(record) == {
        "queries",
        "pruned",
        "loss",
        "error",
        "max_loss",
        "weight",
        "margin",
        "cheap_fingerprint",
    }
    assert record["queries"] == len({row["query"] for row in pruned.rows if sampled(row)})
    assert 0 < record["pruned"] < 1
    assert 0 <= record["loss"] < record["max_loss"] + 3 * record["error"]
    assert record["weight"] == 0  # BM25 alone
    assert record["cheap_fingerprint"] == ""
    assert "cascade" not in pruned.manifest.degraded


def test_pruned_ones_are_neither_mined_nor_given_evidence(pruned: Pruned) -> None:
    left_out = {(row["query"], row["passage_id"]) for row in pruned.rows if row["logit"] is None}
    assert all(row["evidence"] is None for row in pruned.rows if row["logit"] is None)
    mined = rows(pruned.output, pruned.manifest, "hard_negatives")
    assert mined
    assert not {(row["query"], row["negative_id"]) for row in mined} & left_out
    assert not {(row["query"], row["positive_id"]) for row in mined} & left_out
    assert pruned.manifest.mining["rejected"]["pruned"] > 0


def test_the_next_night_reuses_all_that_was_scored_and_prunes_the_same(rivers: Path, tmp_path: Path) -> None:
    first = Pruned(rivers, tmp_path / "output")
    again = run(first.config, run_date=DAY, load=forbidden())
    assert again.previous_run_id == first.manifest.run_id
    assert again.balance.pairs["reused"] == first.manifest.balance.pairs["published"]
    assert again.balance.pairs["pruned"] == first.manifest.balance.pairs["pruned"]
    own = ("query", "passage_id", "rank", "logit")
    assert [[row[name] for name in own] for row in rows(tmp_path / "output", again)] == [
        [row[name] for name in own] for row in first.rows
    ]


def test_several_processes_give_the_same_bytes(
    pruned: Pruned, rivers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # workers import the fake scorer by its name
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    manifest = run(config_of(rivers, tmp_path / "output"), run_date=DAY, load=fake(), beam_flags=flags)
    assert manifest.run_id == pruned.manifest.run_id
    assert manifest.cascade == pruned.manifest.cascade
    assert published_bytes(tmp_path / "output", manifest) == published_bytes(pruned.output, pruned.manifest)


def test_a_night_smaller_than_its_sample_is_scored_in_full(rivers: Path, tmp_path: Path) -> None:
    config = config_of(rivers, tmp_path / "output", cascade={**SAMPLE, "sample_queries": 1000})
    manifest = run(config, run_date=DAY, load=fake())
    assert manifest.balance.pairs["pruned"] == 0
    assert manifest.cascade is not None
    assert manifest.cascade["queries"] == len(QUERIES)
    assert set(manifest.degraded) == {"truncated_pairs"}  # there was nothing to spare


def test_a_sample_that_proves_nothing_is_told(rivers: Path, tmp_path: Path) -> None:
    config = config_of(
        rivers, tmp_path / "output", cascade={**SAMPLE, "max_loss": 0.08, "sample_queries": 12}
    )
    manifest = run(config, run_date=DAY, load=fake())
    assert manifest.cascade is not None
    assert (manifest.cascade["queries"], manifest.cascade["margin"]) == (7, None)  # by its hash, not 12
    assert "scored in full" in str(manifest.degraded["cascade"])
    assert manifest.balance.pairs["pruned"] == 0
    json.dumps(manifest.cascade, allow_nan=False)


def test_a_cheap_model_that_is_no_model_stops_the_night_before_it_starts(
    rivers: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    config = config_of(rivers, tmp_path / "output", cascade={**SAMPLE, "model": str(tmp_path / "empty")})
    with pytest.raises(ModelError, match="empty"):
        run(config, run_date=DAY, load=fake())
    assert not (tmp_path / "output").exists()


def test_a_cheap_model_scores_each_input_once_for_all_nights(
    pruned: Pruned, rivers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cascade = {**SAMPLE, "model": str(write_model(tmp_path / "cheap")), "backend": "onnx", "max_length": 32}
    config = config_of(rivers, tmp_path / "output", cascade=cascade)
    first = run(config, run_date=DAY, load=fake())
    assert first.run_id != pruned.manifest.run_id
    assert first.cascade is not None
    assert first.cascade["cheap_fingerprint"]
    tally = first.stages["PruneCandidates"]
    assert (tally["cheap_scored"], tally["cheap_failed"]) == (first.balance.pairs["read"], 0)
    published = rows(tmp_path / "output", first)
    assert all(row["cheap_score"] is not None for row in published)
    again = run(config, run_date=DAY, load=forbidden())
    assert again.stages["PruneCandidates"]["cheap_scored"] == 0
    assert again.cascade == first.cascade
    assert [row | {"reused": False} for row in rows(tmp_path / "output", again)] == [
        row | {"reused": False} for row in published
    ]
    other = config_of(rivers, tmp_path / "output", cascade={**cascade, "max_length": 16})
    third = run(other, run_date=DAY, load=forbidden() if tally["pruned"] == 0 else fake())
    assert third.stages["PruneCandidates"]["cheap_scored"] == first.balance.pairs["read"]


def test_pruned_ones_are_shown_as_such(pruned: Pruned, capsys: pytest.CaptureFixture[str]) -> None:
    night_summary.print_night(pruned.manifest, str(pruned.output))
    query = next(row["query"] for row in pruned.rows if row["logit"] is None)
    found = show.read_query(str(pruned.output), query)
    show.print_query(found, top=len(found.rows), explain=True)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{pruned.manifest.balance.pairs['pruned']:,} pruned" in shown
    assert "points of the model's nDCG@10 (bound 20)" in shown
    assert shown.count(" pruned ") >= sum(row["logit"] is None for row in found.rows)
