"""A whole night on Spark, which runs within Beam's job server.

Spark is 3.5 with Beam's job server of an older release: this shows the engine's semantics, not that of one release.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.nightly.run import run
from rerank_core.config.night import Config
from tests.conftest import Night
from tests.integration.conftest import require
from tests.support.engine_nights import check_same
from tests.support.fakes import fake
from tests.support.servers.spark import Spark
from tests.support.tiny import DAY

pytestmark = pytest.mark.servers


def test_a_night_on_spark_is_the_night_of_one_machine(night: Night, night_again: Config) -> None:
    with require(Spark) as spark:
        manifest = run(night_again, run_date=DAY, load=fake(), beam_flags=spark.loopback)
    check_same(Path(night_again.output.path), manifest, night)
