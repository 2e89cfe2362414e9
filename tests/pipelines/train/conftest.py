"""What tests of the training's data share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.nightly.run import run
from schemas.manifest import Manifest
from tests.conftest import Night
from tests.support.fakes import fake
from tests.support.tiny import DAY, Tiny, make_config, write_beir


@pytest.fixture(scope="session")
def two(night: Night, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """An output folder with the night and a newer, judged one, and the newer one's manifest. Read only."""
    output = tmp_path_factory.mktemp("two") / "output"
    shutil.copytree(night.output, output)
    folder = write_beir(output.parent / "set", {"q1": "who wrote dune"}, "q1\tdune\t1\n")
    judged = {"queries": str(folder / "queries.jsonl"), "qrels": str(folder / "qrels" / "dev.tsv")}
    return output, run(make_config(tiny, output, evaluation=judged), run_date=DAY, load=fake("other"))
