"""Clicks corrected for their places, in whole nights over the bundled log, whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import night_summary
from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import Config, parse_config
from rerank_core.errors import ConfigError
from rerank_core.text import query_id
from schemas.manifest import Manifest
from tests.conftest import MakeConfig
from tests.support.fakes import fake
from tests.support.tiny import DAY, GOOD_LOG, rows, write_lines

SAMPLE = Path(__file__).parents[3] / "sample_data"
DEBIAS = {"debias": True}


@pytest.fixture(scope="module")
def sample_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "index"
    build_index(SAMPLE, folder)
    return folder


def sample_config(index: Path, output: Path, labels: dict[str, Any]) -> Config:
    return parse_config(
        {
            "source": {"log": str(SAMPLE / "query_log.jsonl"), "index": str(index)},
            "output": {"path": str(output)},
            "candidates": {"top_k": 10},
            "tags": {"enabled": False},
            "evidence": {"top_n": 0},
            "labels": labels,
        }
    )


def right_positives(output: Path, manifest: Manifest) -> float:
    """Share of the positives that were mined for that the judgements hold too."""
    texts = {
        row["_id"]: query_id(row["text"])
        for row in map(json.loads, (SAMPLE / "queries.jsonl").open(encoding="utf-8"))
    }
    qrels = [line.split("\t") for line in (SAMPLE / "qrels" / "dev.tsv").read_text().splitlines()[1:]]
    relevant = {(texts[name], doc_id) for name, doc_id, _ in qrels}
    judged = {query for query, _ in relevant}
    mined = rows(output, manifest, "hard_negatives")
    found = {(row["query_id"], row["positive_id"]) for row in mined if row["query_id"] in judged}
    assert len(found) > 50
    return len(found & relevant) / len(found)


def test_the_positives_of_the_sample_are_the_right_ones(
    sample_index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run(sample_config(sample_index, tmp_path / "plain", {}), run_date=DAY, load=fake())
    corrected = run(sample_config(sample_index, tmp_path / "corrected", DEBIAS), run_date=DAY, load=fake())
    assert plain.places is None
    assert corrected.places is not None
    truth = [1 / place for place in range(1, 11)]
    assert [place["examined"] for place in corrected.places] == pytest.approx(truth, abs=0.1)
    assert all(place["impressions"] > 2000 for place in corrected.places)
    # of the crawler, which clicks everything
    assert corrected.stages["ReadQueryLog"]["events_clicking_all"] > 50
    assert right_positives(tmp_path / "corrected", corrected) > 0.9
    assert right_positives(tmp_path / "plain", plain) < 0.3
    night_summary.print_night(corrected, "out")
    shown = " ".join(capsys.readouterr().out.split())
    assert "corrected for position; propensities from rank 1: 1.00 0." in shown
    assert "events that click nearly all documents shown" in shown


def test_a_log_that_does_not_say_what_was_shown_is_reported(make_config: MakeConfig, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "log.jsonl", GOOD_LOG)  # its impressions are empty
    manifest = run(make_config(source={"log": str(log)}, labels=DEBIAS), run_date=DAY, load=fake())
    assert manifest.places == []
    assert "no event says in 'impressions' which documents were shown" in str(manifest.degraded["labels"])
    assert manifest.tables["hard_negatives"].rows == 0


def test_without_the_column_the_night_does_not_start(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="labels.debias = true needs the documents shown"):
        make_config(labels=DEBIAS, log={"fields": {"impressions": ""}})


def test_judgements_need_no_places(make_config: MakeConfig, tmp_path: Path) -> None:
    write_lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": "who wrote dune"}])
    write_lines(tmp_path / "qrels.tsv", ["query-id\tcorpus-id\tscore", "q1\tdune\t1"])
    labels = {
        "source": "qrels",
        "queries": str(tmp_path / "queries.jsonl"),
        "qrels": str(tmp_path / "qrels.tsv"),
    }
    manifest = run(make_config(labels=labels | DEBIAS), run_date=DAY, load=fake())
    assert manifest.places is None
    assert manifest.tables["hard_negatives"].rows > 0
