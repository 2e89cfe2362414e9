"""What a run publishes about itself, and what it says was done less well than configured."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipelines.beam_options import beam_options
from pipelines.nightly.manifest import COUNTED, degraded
from pipelines.nightly.prepare import Night as PreparedNight
from pipelines.nightly.prepare import prepare
from pipelines.nightly.verify import NO_CANDIDATES, Stages, Verified
from pipelines.storage import runs
from rerank_core.ranking.fusion import FEATURES, Fusion
from schemas.manifest import Balance
from tests.conftest import MakeConfig, Night
from tests.support.fakes import fake
from tests.support.tiny import DAY, read_table


def test_the_manifest_tells_the_run(night: Night) -> None:
    assert runs.latest(str(night.output)) == night.manifest
    assert night.manifest.window == ("2026-03-02T00:00:00+00:00", "2026-03-09T00:00:00+00:00")
    assert night.manifest.degraded == {"truncated_pairs": 0, "queries_without_candidates": 1}
    for name, info in night.manifest.tables.items():
        table = read_table(night.output, night.manifest, name)
        files = list((night.output / info.path).iterdir())
        assert (info.rows, set(info.files)) == (table.num_rows, {file.name for file in files})
        assert info.bytes == sum(file.stat().st_size for file in files)
    shards = [file.name for file in sorted((night.output / night.manifest.tables["reranked"].path).iterdir())]
    assert shards == [f"part-0000{n}-of-00003.parquet" for n in range(3)]  # 6 queries, 2 a shard
    assert not (night.output / "_staging").exists() or not list((night.output / "_staging").iterdir())


def prepared(make_config: MakeConfig, **sections: Any) -> PreparedNight:
    return prepare(make_config(**sections), run_date=DAY, options=beam_options([]), load=fake())


def verified(stages: Stages, *, published: int = 5) -> Verified:
    return Verified({"ReadQueryLog": {}, **stages}, Balance({}, {"published": published}, {}), {}, {})


def test_a_night_as_configured_counts_its_truncated_pairs_alone(make_config: MakeConfig) -> None:
    assert degraded(prepared(make_config), verified({}), None) == {"truncated_pairs": 0}


@pytest.mark.parametrize("key", COUNTED)
def test_a_count_is_read_from_its_tally(make_config: MakeConfig, key: str) -> None:
    stage, tally = COUNTED[key]
    entries = degraded(prepared(make_config), verified({stage: {tally: 3.0}}), None)
    assert entries == {"truncated_pairs": 0} | {key: 3}


def test_queries_that_find_nothing_are_counted(make_config: MakeConfig) -> None:
    found_none = verified({})._replace(rejected={NO_CANDIDATES: 3, "FetchCandidates/search_failed": 1})
    entries = degraded(prepared(make_config), found_none, None)
    assert entries == {"truncated_pairs": 0, "queries_without_candidates": 3}


def test_a_previous_run_that_is_not_reused_is_explained(make_config: MakeConfig) -> None:
    night = prepared(make_config)
    night = dataclasses.replace(night, previous=night.previous._replace(problem="run x is damaged"))
    assert degraded(night, verified({}), None)["reuse"] == "run x is damaged"


def test_clicks_that_cannot_be_corrected_are_explained(make_config: MakeConfig) -> None:
    night = prepared(make_config, labels={"debias": True})
    assert "'impressions'" in str(degraded(night, verified({}), None)["labels"])
    tallies = {"examined:1": 1.0, "impressions:1": 9.0}
    assert "labels" not in degraded(night, verified({"ReadQueryLog": tallies}), None)


@pytest.mark.parametrize(
    ("enabled", "weight", "explained"), [(True, 1.0, False), (False, 0.0, False), (False, 1.0, True)]
)
def test_fusion_weights_of_tags_without_tags_are_explained(
    make_config: MakeConfig, enabled: bool, weight: float, explained: bool
) -> None:
    weights = tuple(weight if name == "one_hop" else float(name == "cross_encoder") for name in FEATURES)
    night = prepared(make_config, tags={"enabled": enabled})
    night = dataclasses.replace(night, models=dataclasses.replace(night.models, fusion=Fusion(weights, 0.0)))
    assert ("fusion" in degraded(night, verified({}), None)) == explained


@pytest.mark.parametrize(
    ("margin", "sampled", "explained"),
    [(0.5, 4, False), (None, 4, True), (None, 5, False)],  # five of five: nothing was left to prune
)
def test_a_cascade_that_prunes_nothing_is_explained(
    make_config: MakeConfig, margin: float | None, sampled: int, explained: bool
) -> None:
    cascade = {"margin": margin, "queries": sampled, "max_loss": 0.005}
    assert ("cascade" in degraded(prepared(make_config), verified({}), cascade)) == explained
