"""Whole nights that are published, and broken ones that are held back: what is said, kept and served."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.storage import runs
from pipelines.storage.held import held_runs, release
from rerank_core.errors import NightHeld
from schemas.manifest import Manifest
from tests.support.changing import World
from tests.support.fakes import fake

NIGHTS = 3
Broken = Callable[[World], dict[str, Any]]

BROKEN: dict[str, tuple[Broken, set[str]]] = {
    "emptied index": (
        lambda world: {"corpus": world.corpus(documents=8)},
        {"candidates_per_query", "candidate_overlap", "overlap_at_10"},
    ),
    "index half gone": (lambda world: {"corpus": world.corpus(number=NIGHTS)[::2]}, {"candidate_overlap"}),
    "another corpus": (
        lambda world: {"corpus": world.corpus(name="x")},
        {"candidate_overlap", "overlap_at_10"},
    ),
    "a model that says the same of everything": (
        lambda world: {"load": fake("constant", constant=True)},
        {"constant_scores"},
    ),
    "log cut to 5 %": (
        lambda world: {"log": world.log(number=NIGHTS, queries=world.queries // 20)},
        {"queries", "events"},
    ),
    "flood of dead letters": (
        lambda world: {"log": [*world.log(number=NIGHTS), *['{"query": "cut of'] * 100]},
        {"dead_letters:ReadQueryLog/bad_json"},
    ),
}


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, list[Manifest]]:
    """A world after its first nights. Read only: copy it to go on from it."""
    world = World(tmp_path_factory.mktemp("stable"))
    return world, [world.night(number) for number in range(NIGHTS)]


@pytest.fixture
def world(stable: tuple[World, list[Manifest]], tmp_path: Path) -> World:
    shutil.copytree(stable[0].folder, tmp_path / "world")
    return World(tmp_path / "world")


def test_stable_nights_raise_no_alarm(stable: tuple[World, list[Manifest]]) -> None:
    for number, manifest in enumerate(stable[1]):
        assert manifest.drift is not None
        assert (manifest.drift["verdict"], manifest.drift["reasons"]) == ("ok", [])
        earlier = [night.run_id for night in reversed(stable[1][:number])]
        assert manifest.drift["week"] == earlier
        assert manifest.drift["previous"] == (earlier[0] if earlier else None)
    assert stable[1][0].drift["notes"] == ["there is no earlier night to compare with"]  # type: ignore[index]
    measures = stable[1][-1].drift["measures"]  # type: ignore[index]
    assert 0.9 < measures["candidate_overlap"]["tonight"] < 1  # the corpus changed a little
    assert measures["candidate_overlap"]["median"]
    assert measures["queries"] | {"warn": 0, "hold": 0} == {
        "tonight": 60,
        "previous": 60,
        "median": 60,
        "difference": 1,
        "warn": 0,
        "hold": 0,
        "verdict": "ok",
    }


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_night_is_held_and_the_next_good_one_publishes(
    stable: tuple[World, list[Manifest]], world: World, fault: str
) -> None:
    change, expected = BROKEN[fault]
    served = stable[1][-1]
    with pytest.raises(NightHeld) as raised:
        world.night(NIGHTS, **{"log": world.log(number=NIGHTS), **change(world)})
    held = raised.value.manifest
    assert held is not None
    assert held.drift is not None
    assert held.drift["verdict"] == "hold"
    holding = {name for name, one in held.drift["measures"].items() if one["verdict"] == "hold"}
    assert expected <= holding
    message = str(raised.value)
    assert "\n" not in message
    keys = set(re.findall(r"drift\.(\w+)\.\w+ = ", message))
    assert keys == {"hold"}
    assert f"nightrank release {world.output} {held.run_id}" in message
    assert f"readers keep run {served.run_id} of {served.run_date}" in message
    assert (raised.value.exit_code, runs.latest(str(world.output))) == (6, served)
    kept = held_runs(str(world.output))
    assert [one.run_id for one in kept] == [held.run_id]
    runs.check_run(str(world.output), kept[0])
    assert not list(world.output.glob("_staging/**/*"))
    assert {path.parent.name for path in world.output.glob(f"*/run_date={held.run_date}")} == {"_held"}

    good = world.night(NIGHTS + 1)
    assert runs.latest(str(world.output)) == good
    assert good.drift is not None
    assert (good.drift["verdict"], good.drift["previous"]) == ("ok", served.run_id)


def test_a_held_night_can_be_released_and_is_then_what_nights_are_compared_with(world: World) -> None:
    corpus = world.corpus(name="x")
    with pytest.raises(NightHeld):
        world.night(NIGHTS, corpus=corpus)
    (held,) = held_runs(str(world.output))
    released = release(str(world.output), held.run_id)
    assert runs.latest(str(world.output)) == released
    after = world.night(NIGHTS + 1, corpus=corpus)
    assert after.drift is not None
    assert (after.drift["verdict"], after.drift["previous"]) == ("ok", held.run_id)


def test_a_changed_limit_publishes_and_a_disabled_check_compares_nothing(world: World) -> None:
    cut = world.log(number=NIGHTS, queries=20)
    with pytest.raises(NightHeld, match=r"drift\.hold\.queries = 0\.4 "):
        world.night(NIGHTS, log=cut, drift={"hold": {"queries": 0.4}})
    warned = world.night(NIGHTS, log=cut)
    assert warned.drift is not None
    assert warned.drift["verdict"] == "warn"
    assert any("drift.warn.queries = 0.5" in reason for reason in warned.drift["reasons"])
    unchecked = world.night(NIGHTS + 1, log=world.log(number=NIGHTS + 1, queries=1), drift={"enabled": False})
    assert unchecked.drift is None
