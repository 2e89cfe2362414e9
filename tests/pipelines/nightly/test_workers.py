"""What a process opens once: shared by copies, and not put out by something else that is shared."""

from __future__ import annotations

import gc
import pickle

from pipelines.nightly.workers import OncePerProcess

OPENED: list[str] = []


class Thing:
    def __init__(self, name: str) -> None:
        OPENED.append(name)


def one() -> Thing:
    return Thing("one")


def other() -> Thing:
    return Thing("other")


def test_two_of_them_do_not_put_each_other_out() -> None:
    OPENED.clear()
    first, second = OncePerProcess(one), OncePerProcess(other)
    copies = [pickle.loads(pickle.dumps(first)), pickle.loads(pickle.dumps(second))]  # noqa: S301  our own bytes
    for _ in range(3):
        held = [first.get(), copies[0].get(), second.get(), copies[1].get()]
        assert held[0] is held[1]
        assert held[2] is held[3]
        del held
        gc.collect()
    assert OPENED == ["one", "other"]


def test_what_is_open_does_not_travel() -> None:
    OPENED.clear()
    first = OncePerProcess(one)
    first.get()
    assert b"_held" in pickle.dumps(first)
    assert pickle.loads(pickle.dumps(first))._held is None  # noqa: S301  our own bytes
