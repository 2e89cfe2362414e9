"""Vectors over nights: a passage that was a candidate before is not embedded again, whatever is asked."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.nightly.estimate import estimate
from pipelines.nightly.run import run
from pipelines.storage.vectors import FOLDER, KeptVectors
from rerank_core.inference.encoding import Row
from rerank_core.scoring.backends.bi_encoder import _key
from rerank_core.scoring.backends.bi_encoder_onnx import OnnxEmbedder
from rerank_core.scoring.load import load_scorer
from schemas.manifest import Manifest
from tests.conftest import MakeConfig
from tests.support.tiny import DAY, event, rows, write_lines

FIRST = ("who wrote dune", "solaris novel", "seattle or tacoma")
SECOND = ("novel by frank herbert", "where does seattle lie", "who wrote solaris")
NEXT = DAY + datetime.timedelta(days=1)
WORKERS = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")

ANight = Callable[..., Manifest]


@pytest.fixture
def a_night(make_config: MakeConfig, tmp_path: Path) -> ANight:
    """`a_night(queries, run_date, ...)`: a night of the shipped model, in which these are asked."""

    def make(
        asked: Sequence[str],
        run_date: datetime.date = DAY,
        *,
        beam_flags: Sequence[str] = (),
        output: str = "output",
        **sections: Any,
    ) -> Manifest:
        log = write_lines(
            tmp_path / "asked.jsonl", [event(query, at=f"{run_date}T10:00:00Z") for query in asked]
        )
        sections = {"source": {"log": str(log)}, "log": {"window_days": 1}} | sections
        config = make_config(output={"path": str(tmp_path / output)}, **sections)
        return run(config, run_date=run_date, beam_flags=beam_flags)

    return make


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of each text that was embedded, but for those by which batches are checked."""
    tokens, embed = list[int](), OnnxEmbedder.embed

    def count(self: OnnxEmbedder, texts: Sequence[Row]) -> np.ndarray:
        tokens.extend(len(row.ids) for row in texts)
        return embed(self, texts)

    monkeypatch.setattr("rerank_core.scoring.batch_check.check_batches", lambda *_, **__: None)
    monkeypatch.setattr(OnnxEmbedder, "embed", count)
    return tokens


def scores(output: Path, manifest: Manifest) -> dict[tuple[str, str], tuple[Any, ...]]:
    columns = ("logit", "score", "rank", "evidence", "evidence_logit")
    return {
        (row["query"], row["passage_id"]): tuple(row[name] for name in columns)
        for row in rows(output, manifest)
    }


def test_the_next_night_embeds_its_queries_alone(
    a_night: ANight, tmp_path: Path, embedded: list[int]
) -> None:
    a_night(FIRST)
    whole = len(embedded)
    embedded.clear()
    again = a_night(SECOND, NEXT)
    assert again.balance.pairs["reused"] == 0
    assert len(embedded) < whole / 2
    embedded.clear()
    without = a_night(SECOND, NEXT, reuse={"vectors_mb": 0}, output="without")
    assert len(embedded) > whole / 2
    assert scores(tmp_path / "output", again) == scores(tmp_path / "without", without)
    assert not (tmp_path / "without" / FOLDER).exists()


def test_what_two_workers_keep_serves_a_night_in_one_process(a_night: ANight, embedded: list[int]) -> None:
    a_night(FIRST, beam_flags=WORKERS)
    assert not embedded  # of this process
    a_night(FIRST, NEXT, output="other")
    whole = len(embedded)
    embedded.clear()
    a_night(SECOND, NEXT)
    assert 0 < len(embedded) < whole / 2


def test_no_query_is_kept(a_night: ANight, tmp_path: Path) -> None:
    a_night(FIRST)
    scorer: Any = load_scorer()
    kept = KeptVectors(tmp_path / "output" / FOLDER / scorer.fingerprint, most=0)
    prompts, passage = scorer._settings, "Dune is a novel by Frank Herbert. It was published in 1965."
    assert kept.look_up([_key(prompts.passage + passage)])
    assert not kept.look_up([_key(prompts.query + query) for query in FIRST])


def test_an_estimate_keeps_nothing(a_night: ANight, make_config: MakeConfig, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "asked.jsonl", [event(query) for query in FIRST])
    config = make_config(output={"path": str(tmp_path / "output")}, source={"log": str(log)})
    assert estimate(config, run_date=DAY).fresh > 0
    assert not (tmp_path / "output").exists()


def test_vectors_do_not_change_the_id_of_a_night(a_night: ANight) -> None:
    with_vectors = a_night(FIRST)
    assert with_vectors.run_id == a_night(FIRST, reuse={"vectors_mb": 0}, output="other").run_id
