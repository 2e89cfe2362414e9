"""The lines that the model of costs is made of: how they are fitted, and how their error is found."""

from __future__ import annotations

import pytest

from benchmarks import scale


def nights(*amounts: float) -> dict[int, scale.Nights]:
    """First nights of 100, 200, ... pairs, each of whose figures is the amount."""
    keys = [key for kind, key in scale.FITTED if kind == "first"]
    return {
        100 * number: {"first": {"pairs": 100.0 * number} | dict.fromkeys(keys, amount)}
        for number, amount in enumerate(amounts, start=1)
    }


def test_a_line_is_found_again() -> None:
    assert scale.fit([(10, 2.5), (20, 3.0), (60, 5.0)]) == pytest.approx((2.0, 0.05))


def test_neither_part_of_a_line_is_negative() -> None:
    assert scale.fit([(10, 10), (20, 30)])[0] == 0


def test_the_error_is_that_of_the_night_that_was_held_out() -> None:
    figures = scale.model(nights(3.0, 5.0, 8.0), held_out=300)
    line = [figures[f"first_cpu_seconds_{name}"] for name in ("fixed", "each", "error")]
    assert line == pytest.approx([1.0, 0.02, 7 / 8 - 1])
    assert figures["model_error"] == pytest.approx(1 / 8)


def test_the_night_that_was_held_out_moves_no_line() -> None:
    assert scale.model(nights(3.0, 5.0, 7.0), held_out=300)["model_error"] == pytest.approx(0, abs=1e-9)


def test_what_look_ups_read_is_no_part_of_the_line() -> None:
    found = {}
    for pairs in (10_000.0, 100_000.0, 300_000.0, 1_000_000.0):
        night = {"pairs": pairs} | dict.fromkeys([key for _, key in scale.FITTED], 500 * pairs)
        night["read_bytes"] += scale.looked_up(night, "second", "read_bytes")
        found[int(pairs)] = {"second": night}
    assert found[1_000_000]["second"]["read_bytes"] > 1.5 * 500 * 1e6
    figures = scale.model(found, held_out=300_000)
    assert figures["second_read_bytes_each"] == pytest.approx(500, rel=1e-6)
    assert figures["model_error"] == pytest.approx(0, abs=1e-9)
    assert scale.looked_up({"pairs": 1e6}, "first", "read_bytes") == 0
