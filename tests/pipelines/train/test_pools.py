"""A query's candidates for the next round: what its run published, and what a bi-encoder finds beside it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.nightly.run import run as run_night
from pipelines.train import data
from pipelines.train.dense_candidates import DenseCandidates
from pipelines.train.pools import read_pools
from rerank_core.config.remining import Dense
from rerank_core.config.training import TrainingStage
from rerank_core.features.render import passage_text
from rerank_core.text import query_id
from rerank_core.training.groups import Group, positive_key
from rerank_core.training.remine import Pool
from schemas.errors import ManifestError
from tests.conftest import Night
from tests.support.fakes import fake
from tests.support.tiny import CORPUS, DAY, Tiny, make_config, rows, write_lines
from tests.support.tiny_models import write_sentence_folder

TEXTS = {one["_id"]: passage_text(one["title"], one["text"]) for one in CORPUS}
MEASURED = "solaris novel"


@pytest.fixture(scope="module")
def bi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_folder(tmp_path_factory.mktemp("bi") / "bi")


def pools_of(night: Night, **options: Any) -> tuple[dict[str, Pool], Counter[str], Counter[str]]:
    counts, candidates = Counter[str](), Counter[str]()
    given: dict[str, Any] = {"held_out": frozenset(), "seen": set(), "dense": None, "tagged": True} | options
    found = read_pools((str(night.output), night.manifest), counts=counts, candidates=candidates, **given)
    return {one.query: one for pools in found for one in pools}, counts, candidates


def test_a_pool_holds_what_was_published(night: Night) -> None:
    pools, counts, candidates = pools_of(night)
    wanted: dict[str, set[str]] = {}
    for row in rows(night.output, night.manifest):
        wanted.setdefault(row["query"], set()).add(row["passage_id"])
    mined = rows(night.output, night.manifest, "hard_negatives")
    assert set(pools) == {row["query"] for row in mined}
    for query, found in pools.items():
        assert {one.passage_id for one in found.candidates} == wanted[query]
        assert found.positives == {row["positive_id"] for row in mined if row["query"] == query}
        for one, head in zip(found.candidates, found.tags, strict=True):
            assert passage_text(one.title, one.text) == TEXTS[one.doc_id]
            assert head.startswith("[HOP:")
    assert (counts, candidates) == (Counter(), Counter(published=sum(len(wanted[query]) for query in pools)))


def test_a_positive_of_another_run_is_no_candidate(night: Night) -> None:
    mined = rows(night.output, night.manifest, "hard_negatives")
    query, text = mined[0]["query"], mined[0]["negative"]
    positives = {positive_key(row["query"], row["positive"]) for row in mined}

    same, _, before = pools_of(night, positives=positives)
    less, _, after = pools_of(night, positives=positives | {positive_key(query.upper(), f" {text}")})

    assert before["other_labelled"] == 0
    assert after["other_labelled"] == 1
    assert [one.text for one in same[query].candidates if one not in less[query].candidates] != []
    assert len(less[query].tags) == len(less[query].candidates) == len(same[query].candidates) - 1


def test_what_was_cut_from_the_lists_is_there_all_the_same(tiny: Tiny, tmp_path: Path) -> None:
    config = make_config(tiny, tmp_path / "output", ranking={"top_n": 1}, candidates={"unit": "sentence"})
    night = Night(config, tmp_path / "output", run_night(config, run_date=DAY, load=fake()))

    pools, _, _ = pools_of(night)

    for row in rows(night.output, night.manifest, "hard_negatives"):
        names = {one.passage_id: one for one in pools[row["query"]].candidates}
        for side in ("positive", "negative"):
            found = names[row[f"{side}_id"]]
            assert passage_text(found.title, found.text) == row[side]
            assert found.doc_id == row[f"{side}_id"].partition("#")[0]


def test_known_and_held_out_queries_are_counted(night: Night) -> None:
    pools, _, _ = pools_of(night)
    keys: set[bytes] = set()
    for group in groups_of(night):
        if group.query == "who wrote dune":
            keys.add(bytes.fromhex(group.key))
    left, counts, _ = pools_of(night, seen=keys, held_out=frozenset({query_id(MEASURED)}))
    gone = {query.casefold().rstrip("?") for query in set(pools) - set(left)}
    assert gone == {"who wrote dune", MEASURED}
    assert counts["groups_held_out"] == 1
    assert counts["groups_known"] == len(keys) > 0


def groups_of(night: Night) -> list[Group]:
    counts = Counter[str]()
    stage = TrainingStage(name="s", runs=(str(night.output),))
    runs = data.find_runs(stage)
    found = data._all_groups(stage, runs, frozenset(), counts)
    return [one._replace(query=one.query.casefold().rstrip("?")) for one in found]


def test_a_run_without_texts_or_tags_is_named(tiny: Tiny, tmp_path: Path) -> None:
    for sections, message in (
        ({"output": {"store_text": False}}, "has no texts, .* output.store_text = true, or set rounds = 1"),
        ({"tags": {"enabled": False}}, "published without tags"),
    ):
        output = tmp_path / next(iter(sections))
        config = make_config(tiny, output, **sections)
        night = Night(config, output, run_night(config, run_date=DAY, load=fake()))
        with pytest.raises(ManifestError, match=message):
            pools_of(night)
    pools, _, _ = pools_of(night, tagged=False)
    assert {head for one in pools.values() for head in one.tags} == {""}


def test_a_bi_encoder_finds_what_bm25_did_not(night: Night, tiny: Tiny, bi: Path, tmp_path: Path) -> None:
    options = Dense(str(bi), corpus=str(tiny.folder / "corpus.jsonl"), top_k=len(CORPUS), max_length=48)
    dense = DenseCandidates(options, tmp_path / "dense", [])

    pools, _, candidates = pools_of(night, dense=dense)
    bare, _, _ = pools_of(night)

    for query, found in pools.items():
        assert sorted(one.passage_id for one in found.candidates) == sorted(TEXTS)
        old = bare[query].candidates
        new = found.candidates[len(old) :]
        assert found.candidates[: len(old)] == old
        assert min(one.bm25_rank for one in new) > max(one.bm25_rank for one in old)
    assert candidates["dense"] + candidates["dense_published"] == len(pools) * len(CORPUS)


def test_a_passage_that_the_labels_call_positive_is_no_candidate(
    tiny: Tiny, bi: Path, tmp_path: Path
) -> None:
    """A judged document that BM25 missed: as a negative it would teach the opposite of its label."""
    queries = write_lines(tmp_path / "queries.jsonl", [{"_id": "q1", "text": MEASURED}])
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tsolaris\t1\nq1\tsnow\t1\n")
    labels = {"source": "qrels", "queries": str(queries), "qrels": str(tmp_path / "qrels.tsv")}
    config = make_config(tiny, tmp_path / "output", labels=labels)
    night = Night(config, tmp_path / "output", run_night(config, run_date=DAY, load=fake()))
    options = Dense(str(bi), corpus=str(tiny.folder / "corpus.jsonl"), top_k=len(CORPUS), max_length=48)

    pools, _, candidates = pools_of(night, dense=DenseCandidates(options, tmp_path / "dense", []))

    (found,) = pools.values()
    assert {one.doc_id for one in found.candidates} == set(TEXTS) - {"snow"}
    assert candidates["dense_labelled"] == 1
