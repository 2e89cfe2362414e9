"""Simulated nights: stable ones raise no false alarm, whatever the log's size, and broken ones are held back."""

from __future__ import annotations

import pytest

from benchmarks.drift import FAULTS, broken_nights, stable_nights


@pytest.mark.parametrize("size", [5, 20, 100])
def test_stable_nights_raise_no_false_alarm(size: int) -> None:
    shares = stable_nights(size, nights=40)
    assert shares[f"held_{size}"] == 0
    assert shares[f"warned_{size}"] <= 0.05


def test_broken_nights_are_held() -> None:
    caught = broken_nights(200, trials=3)
    assert {fault for fault in FAULTS if caught[f"caught_{fault}_200"] == 1} >= set(FAULTS) - {"log_cut"}
    assert caught["caught_log_cut_200"] >= 0.5  # what it is compared with swings by 30 %
