"""What a process opens once: shared by its copies, and not evicted by another shared object."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

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


def test_what_is_open_in_this_process_is_not_opened_again() -> None:
    opened = Thing("before")
    OPENED.clear()
    first = OncePerProcess(one, opened=opened)
    copy = pickle.loads(pickle.dumps(first))  # noqa: S301  our own bytes
    assert first.get() is copy.get() is opened
    assert not OPENED


def test_another_process_opens_it_for_itself() -> None:
    first = OncePerProcess(one, opened=Thing("before"))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(opened_there, pickle.dumps(first)).result() == ["one"]


def opened_there(pickled: bytes) -> list[str]:
    pickle.loads(pickled).get()  # noqa: S301  our own bytes
    return OPENED
