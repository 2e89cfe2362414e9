"""A corpus that a bi-encoder searches."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.train.dense_candidates import DenseCandidates
from rerank_core.config.remining import Dense
from rerank_core.features.render import passage_text
from tests.conftest import Night
from tests.support.tiny import CORPUS, rows
from tests.support.tiny_models import write_sentence_folder

TEXTS = {one["_id"]: passage_text(one["title"], one["text"]) for one in CORPUS}


@pytest.fixture(scope="module")
def bi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_folder(tmp_path_factory.mktemp("bi") / "bi")


def test_passages_of_the_runs_are_the_corpus_where_none_is_named(
    night: Night, bi: Path, tmp_path: Path
) -> None:
    options = Dense(str(bi), top_k=3, max_length=48)
    dense = DenseCandidates(options, tmp_path / "dense", [(str(night.output), night.manifest)] * 2)

    published = {row["passage_id"] for row in rows(night.output, night.manifest)}
    assert dense.record["passages"] == len(published)
    assert dense.record["name"] == "the runs"
    (found,) = dense.search([TEXTS["dune"]])
    assert found[0].passage_id == "dune"
    assert passage_text(found[0].title, found[0].text) == TEXTS["dune"]
    again = DenseCandidates(options, tmp_path / "dense", [])  # what is embedded is not embedded again
    assert again.search(["who wrote dune"]) == dense.search(["who wrote dune"])
