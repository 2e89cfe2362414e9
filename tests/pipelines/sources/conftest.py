"""The small corpus' index, built once a module."""

from __future__ import annotations

import pytest

from pipelines.sources.local.bm25_index import LocalIndex
from tests.support.local_data import CORPUS, build


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> LocalIndex:
    return build(tmp_path_factory.mktemp("corpus"), CORPUS)
