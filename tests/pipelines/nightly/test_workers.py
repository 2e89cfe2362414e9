"""What a process opens once: shared by its copies, and not evicted by another shared object."""

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


def test_two_of_them_do_not_evict_each_other() -> None:
    OPENED.clear()
    first, second = OncePerProcess(one), OncePerProcess(other)
    copies = [pickle.loads(pickle.dumps(first)), pickle.loads(pickle.dumps(second))]  # noqa: S301  our own bytes
    for _ in range(3):
        things = [first.get(), copies[0].get(), second.get(), copies[1].get()]
        assert things[0] is things[1]
        assert things[2] is things[3]
        del things
        gc.collect()
    assert OPENED == ["one", "other"]


def test_what_was_loaded_is_not_pickled() -> None:
    OPENED.clear()
    first = OncePerProcess(one)
    first.get()
    assert b"_loaded" in pickle.dumps(first)
    assert pickle.loads(pickle.dumps(first))._loaded is None  # noqa: S301  our own bytes
