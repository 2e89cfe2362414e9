from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rerank_core
from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from pipelines.storage import filesystem, runs
from rerank_core import rank_passages
from rerank_core.config.backends import BACKENDS, Backend
from rerank_core.config.night import load_config
from rerank_core.errors import ConfigError, ModelError, ScoringFailed
from rerank_core.features.render import passage_text, render
from rerank_core.features.tagger import tag

ROOT = Path(__file__).parents[2]


class Overlap:
    """Counts the words that both sides share."""

    fingerprint = "overlap"
    reads_tags = False

    def __init__(self, *, bad: str = "never") -> None:
        self.bad = bad
        self.seen: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.seen += pairs
        if any(self.bad in passage for _, passage in pairs):
            raise RuntimeError("cannot take it")
        shared = [len(set(q.lower().split()) & set(p.lower().split())) for q, p in pairs]
        return np.array(shared, np.float32)


QUERY = "Who wrote the novel Dune?"
PASSAGES = ["Sand moves.", ("Dune", "Dune is a novel that Frank Herbert wrote"), ("Herbert", "He wrote it.")]


def test_passages_come_by_falling_logit() -> None:
    ranked = rerank_core.rank(QUERY, PASSAGES, model=Overlap(), tags=False)
    assert [(passage.index, passage.logit) for passage in ranked] == [(1, 3.0), (2, 1.0), (0, 0.0)]
    assert [passage.score for passage in ranked] == pytest.approx([0.952574, 0.731059, 0.5], abs=1e-6)
    assert all(passage.tags is None for passage in ranked)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Rows of `reranked` of the demo's night, of a part of its log, by query in the order of BM25."""
    folder = tmp_path_factory.mktemp("demo")
    build_index(ROOT / "sample_data", folder / "index")
    events = (ROOT / "sample_data" / "query_log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "log.jsonl").write_text("".join(events[::60]), encoding="utf-8")
    config = load_config(ROOT / "examples" / "demo.toml")
    config = dataclasses.replace(
        config,
        source=dataclasses.replace(config.source, log=str(folder / "log.jsonl"), index=str(folder / "index")),
        output=dataclasses.replace(config.output, path=str(folder / "output")),
    )
    manifest = run(config, run_date=datetime.date(2026, 3, 8))
    files = runs.table_files(config.output.path, manifest, "reranked")
    rows = [row for file in files for row in filesystem.read_table(file).to_pylist()]
    rows.sort(key=lambda row: (row["query_id"], row["rank_before"]))
    return {query: list(group) for query, group in itertools.groupby(rows, key=lambda row: row["query"])}


def test_the_order_and_the_scores_are_those_of_the_demo_night(demo: dict[str, list[dict[str, Any]]]) -> None:
    assert len(demo) > 20
    for query, rows in demo.items():
        ranked = rerank_core.rank(
            query,
            [(row["title"], row["text"]) for row in rows],
            first_stage_scores=[row["bm25_score"] for row in rows],
        )
        published = sorted(rows, key=lambda row: row["rank"])
        assert [rows[passage.index]["passage_id"] for passage in ranked] == [
            r["passage_id"] for r in published
        ]
        for column in ("logit", "fused_logit", "score"):
            values = np.array([getattr(passage, column) for passage in ranked], np.float32)
            expected = np.array([row[column] for row in published], np.float32)
            # A night scores other pairs in the same batches: the last bit of a logit may differ.
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6, err_msg=query)
        tags = [(p.tags.hop, list(p.tags.entities)) for p in ranked if p.tags]
        assert tags == [(row["hop"], row["entities"]) for row in published]


@pytest.mark.parametrize("reads_tags", [True, False])
def test_the_input_is_the_nights(reads_tags: bool) -> None:
    scorer = Overlap()
    scorer.reads_tags = reads_tags
    ranked = rerank_core.rank(f"  {QUERY} ", PASSAGES, model=scorer)
    titled = [("", "Sand moves."), *PASSAGES[1:]]
    query = QUERY.removesuffix("?")  # normalised as the log's queries are
    tags = tag(query, titled)
    rendered = [
        render(query, passage_text(*p), t if reads_tags else None) for p, t in zip(titled, tags, strict=True)
    ]
    assert set(scorer.seen) == {(side.query, side.passage) for side in rendered}
    assert {passage.index: passage.tags for passage in ranked} == dict(enumerate(tags))


def test_ties_keep_the_given_order_and_top_n_cuts() -> None:
    ranked = rerank_core.rank("x", ["a", "b", "x", "c"], model=Overlap(), tags=False, top_n=3)
    assert [passage.index for passage in ranked] == [2, 0, 1]


def test_no_passages_load_no_model() -> None:
    assert rerank_core.rank(QUERY, [], model="/no/such/folder") == []


def test_a_passage_that_cannot_be_scored_is_named() -> None:
    with pytest.raises(
        ScoringFailed, match=r"passage 2 cannot be scored: model_error: RuntimeError: cannot take it"
    ):
        rerank_core.rank(QUERY, ["a", "b", "poison"], model=Overlap(bad="poison"))


def test_a_folder_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []

    def load(model: str, **options: Any) -> Overlap:
        loaded.append(Path(model))
        return Overlap()

    monkeypatch.setitem(BACKENDS, "onnx", Backend(load, bi_encoders=True))
    monkeypatch.setitem(BACKENDS, "bi_encoder", Backend(load, cosine=True))
    rank_passages._load_model.cache_clear()
    try:
        for name in ("one", "one", "two", None, None):
            if name:
                (tmp_path / name).mkdir(exist_ok=True)
            rerank_core.rank(QUERY, PASSAGES, model=tmp_path / name if name else None)
    finally:
        rank_passages._load_model.cache_clear()
    assert [folder.name for folder in loaded] == ["one", "two", "default"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose model counts shared words; a test puts its fusion and calibration there."""
    monkeypatch.setitem(BACKENDS, "onnx", Backend(lambda model: Overlap()))
    return tmp_path


def write_fusion(folder: Path, weights: dict[str, float], *, bi_encoder: str = "") -> None:
    contents = {"weights": weights, "bias": 0.0, "bi_encoder": bi_encoder}
    (folder / "fusion.json").write_text(json.dumps(contents))


def test_the_calibration_of_a_folder_gives_the_scores(folder: Path) -> None:
    (folder / "calibration.json").write_text(json.dumps({"scale": 2.0, "shift": -3.0, "knots": []}))
    ranked = rerank_core.rank(QUERY, PASSAGES, model=folder, tags=False)
    assert [p.logit for p in ranked] == [3.0, 1.0, 0.0]
    assert [p.score for p in ranked] == pytest.approx([0.952574, 0.268941, 0.047426], abs=1e-6)
    assert all(passage.fused_logit is None for passage in ranked)


def test_first_stage_scores_take_part_in_a_fused_order(folder: Path) -> None:
    write_fusion(folder, {"cross_encoder": 1.0, "bm25": 5.0})
    without = rerank_core.rank("x", ["x", "a", "b"], model=folder, tags=False)
    assert [(p.index, p.logit, p.fused_logit) for p in without] == [
        (0, 1.0, 1.0),
        (1, 0.0, 0.0),
        (2, 0.0, 0.0),
    ]
    scored = rerank_core.rank("x", ["x", "a", "b"], model=folder, tags=False, first_stage_scores=[1, 2, 9])
    assert [p.index for p in scored] == [2, 1, 0]
    assert all(p.score == pytest.approx(1 / (1 + np.exp(-p.fused_logit))) for p in scored)


def test_a_fusion_with_a_bi_encoder_needs_that_one(folder: Path) -> None:
    write_fusion(folder, {"cross_encoder": 1.0, "bi_encoder": 10.0}, bi_encoder="by length")

    class ByLength(Overlap):
        fingerprint = "by length"

        def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
            return np.array([len(passage) for _, passage in pairs], np.float32)

    ranked = rerank_core.rank("x", ["x", "aa", "bbb"], model=folder, bi_encoder=ByLength(), tags=False)
    assert [(p.index, p.fused_logit) for p in ranked] == [(2, 30.0), (1, 20.0), (0, 11.0)]
    with pytest.raises(ConfigError, match="fitted with a bi-encoder"):
        rerank_core.rank("x", ["x"], model=folder)
    with pytest.raises(ConfigError, match="fitted with another bi-encoder"):
        rerank_core.rank("x", ["x"], model=folder, bi_encoder=Overlap())


@pytest.mark.parametrize("name", ["fusion.json", "calibration.json"])
def test_a_damaged_file_of_the_folder_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("{")
    with pytest.raises(ModelError, match=name):
        rerank_core.rank("x", ["x"], model=folder)


def test_options_go_to_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Backend(lambda model, device: Overlap(bad=device), options=("device",))
    monkeypatch.setitem(BACKENDS, "torch", backend)
    with pytest.raises(ScoringFailed, match="passage 1"):
        rerank_core.rank("x", ["a", "cuda"], model=folder, backend="torch", device="cuda", tags=False)


def test_equal_passages_of_a_long_list_keep_their_order() -> None:
    ranked = rerank_core.rank("x", ["same"] * 120, model=Overlap(), tags=False)
    assert [passage.index for passage in ranked] == list(range(120))


def test_a_passage_without_text_is_scored_and_a_title_alone_is_its_text() -> None:
    scorer = Overlap()
    ranked = rerank_core.rank("dune", ["", ("Dune", "")], model=scorer)
    assert [(passage.index, passage.passage, passage.logit) for passage in ranked] == [
        (1, ("Dune", ""), 1.0),
        (0, "", 0.0),
    ]


@pytest.mark.parametrize(
    ("query", "passages", "options", "error", "said"),
    [
        ("", ["a"], {}, ValueError, "query '' is empty"),
        (" ?! ", ["a"], {}, ValueError, "is empty"),
        (7, ["a"], {}, TypeError, "query is a int, 7; give a str"),
        ("q", "a passage", {}, TypeError, "passages is one str"),
        ("q", ["a", 3], {}, TypeError, "passage 1 is 3; give a text"),
        ("q", [("t", "x", "y")], {}, TypeError, "passage 0 is"),
        ("q", [("t", None)], {}, TypeError, "passage 0 is"),
        ("q", [b"x"], {}, TypeError, "passage 0 is b'x'"),
        ("q", ["a"], {"top_n": 0}, ValueError, "top_n is 0"),
        ("q", ["a"], {"first_stage_scores": [1, 2]}, ValueError, "2 for 1 passages"),
        ("q", ["a"], {"first_stage_scores": [float("nan")]}, ValueError, "not finite"),
        ("q", ["a"], {"device": "cuda"}, TypeError, "device: options are for a model's folder"),
        ("q", ["a"], {"bi_encoder": Overlap()}, ConfigError, "bi_encoder would have no effect"),
    ],
)
def test_bad_input_is_named(
    query: Any, passages: Any, options: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        rerank_core.rank(query, passages, model=Overlap(), **options)
