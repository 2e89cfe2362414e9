"""The order of a stage's examples: whole epochs, free of the files' order, from easy to hard, with replay."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.training.groups import Facts
from rerank_core.training.schedule import schedule

SIZES = st.lists(st.integers(2, 5), min_size=1, max_size=12)


def facts(sizes: list[int], *, first_key: int = 0) -> Facts:
    n = len(sizes)
    keys = np.arange(first_key, first_key + n, dtype=np.uint64)
    margins = np.linspace(0.9, -0.9, n).astype(np.float32)  # the last is the hardest
    return Facts(keys, np.array(sizes, np.int32), margins, np.ones(n, np.int32))


def examples(made, *, epoch=None):
    rows = zip(made.source, made.group, made.member, made.epoch, strict=True)
    return [tuple(map(int, row[:3])) for row in rows if epoch is None or row[3] == epoch]


@given(SIZES, st.booleans(), st.integers(1, 3), st.integers(0, 5))
def test_every_epoch_holds_every_example_once(sizes, pairwise, epochs, seed) -> None:
    made = schedule(facts(sizes), [], pairwise=pairwise, epochs=epochs, seed=seed)

    wanted = {(0, g, m) for g, size in enumerate(sizes) for m in (range(size) if pairwise else [-1])}
    for epoch in range(epochs):
        held = examples(made, epoch=epoch)
        assert set(held) == wanted
        assert len(held) == len(wanted)
    assert made.unseen == 0
    assert made.epoch.tolist() == sorted(made.epoch.tolist())


@given(SIZES, st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_the_files_has_no_effect(sizes, pairwise, growing, random) -> None:
    held = facts(sizes)
    order = list(range(len(sizes)))
    random.shuffle(order)
    moved = Facts(*(column[order] for column in held))

    def keys(of):
        made = schedule(of, [], pairwise=pairwise, epochs=2, growing=growing, seed=7)
        return [(int(of.keys[g]), m) for _, g, m in examples(made)]

    assert keys(held) == keys(moved)


def test_seed_and_epoch_change_the_order() -> None:
    held = facts([2] * 50)
    one, other = (schedule(held, [], pairwise=False, epochs=2, seed=seed) for seed in (1, 2))
    assert examples(one) != examples(other)
    assert examples(one, epoch=0) != examples(one, epoch=1)
    assert examples(one) == examples(schedule(held, [], pairwise=False, epochs=2, seed=1))


def test_easy_examples_come_first_and_hard_ones_more_and_more() -> None:
    held = facts([2] * 200)
    made = schedule(held, [], pairwise=False, epochs=4, growing=True, seed=7)

    hardness = [np.mean(made.group[made.epoch == epoch]) / 199 for epoch in range(4)]
    assert hardness == sorted(hardness)
    assert hardness[0] < 0.4
    assert hardness[3] > 0.6
    assert made.rows == 800
    assert made.unseen == 200 - len(set(made.group.tolist()))


def test_of_equal_margins_the_one_that_bm25_ranks_high_is_hard() -> None:
    held = facts([2] * 100)._replace(
        margins=np.zeros(100, np.float32), ranks=np.arange(100, 0, -1).astype(np.int32)
    )
    made = schedule(held, [], pairwise=False, epochs=1, growing=True, seed=7)
    half = made.rows // 2
    assert made.group[:half].mean() < made.group[half:].mean()  # group 0 has rank 100: the easiest


def test_replay_mixes_in_its_share_of_earlier_stages() -> None:
    held, earlier = facts([2] * 90), [facts([2] * 40), facts([2] * 5)]
    made = schedule(held, earlier, pairwise=True, epochs=3, replay=0.25, seed=7)

    for epoch in range(3):
        by_source = Counter(source for source, *_ in examples(made, epoch=epoch))
        assert by_source[0] == 180
        assert by_source[1] + by_source[2] == 60
        # none twice, as there are enough
        assert len({row for row in examples(made, epoch=epoch) if row[0]}) == 60
    places = np.flatnonzero(made.source[made.epoch == 0])
    assert 80 < places.mean() < 160  # mixed in, not put before or behind


def test_replay_of_few_repeats_them() -> None:
    made = schedule(facts([2] * 40), [facts([2])], pairwise=False, epochs=1, replay=0.2, seed=7)
    assert examples(made).count((1, 0, -1)) == 10
