"""What tests of whole nights share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings as hypothesis_settings

from pipelines.nightly.run import run
from rerank_core import redact
from rerank_core.config.night import Config
from schemas.manifest import Manifest
from tests.support import tiny as tiny_night
from tests.support.fakes import fake
from tests.support.tiny import DAY, Tiny, make_tiny

# A deadline is a timed assertion: on a busy machine it fails a test that is right.
hypothesis_settings.register_profile("nightrank", deadline=None)
hypothesis_settings.load_profile("nightrank")

SECRET = "hunter2-7c1f"
MakeConfig = Callable[..., Config]


class Night(NamedTuple):
    """A published run."""

    config: Config
    output: Path
    manifest: Manifest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the files of tests/golden anew")


@pytest.fixture(autouse=True)
def _logging() -> None:
    """What a command or a library that was called within the process did to logging does not reach another test."""
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):  # logging.config disables every one that there is
            logger.disabled = False
            if logger.name.partition(".")[0] in ("nightrank", "pipelines", "rerank_core", "schemas"):
                logger.propagate = True
                logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Corpus, index and logs of a tiny night. Read only."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make_config(tiny: Tiny, tmp_path: Path) -> MakeConfig:
    """`make_config(output={...}, ...)`: a tiny night of good events, published under tmp_path/output."""

    def make(**sections: dict[str, Any]) -> Config:
        return tiny_night.make_config(tiny, tmp_path / "output", **sections)

    return make


@pytest.fixture(scope="session")
def night(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """The whole log's night by the fake scorer. Read only: copy its folder to go on from it."""
    output = tmp_path_factory.mktemp("night") / "output"
    config = tiny_night.make_config(
        tiny, output, source={"log": str(tiny.log)}, output={"max_rejected_share": 0.5}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTRANK_TEST_SECRET", SECRET)
        # What earlier tests let this process know as secrets is not hidden in this night's dead letters.
        patch.setattr(redact, "_known", None)
        patch.setattr(redact, "_forms", ())
        return Night(config, output, run(config, run_date=DAY, load=fake()))
