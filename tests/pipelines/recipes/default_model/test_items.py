"""What the model learns from."""

from __future__ import annotations

from collections import Counter

import pytest

from pipelines.recipes.default_model.items import Draw, Item, by_kind, drawn, item_of, made_item
from pipelines.recipes.default_model.questions import Question, SetPassage


def many(count: int, *, title: str = "", name: str = "d") -> list[SetPassage]:
    return [SetPassage(f"{name}{n}", title, f"text {name} {n}") for n in range(count)]


RHINE = SetPassage("rhine", "Rhine", "The Rhine rises in the Swiss Alps.")
ALPS = SetPassage("alps", "Alps", "The Swiss Alps feed the Rhone.")
CORPUS = {p.doc_id: p for p in (RHINE, ALPS, *many(60))}
WHERE = Question("q1", "Where does the Rhine rise?", ("Swiss Alps",), frozenset({"rhine"}), ())


def test_negatives_are_the_nearest_and_a_few_from_further_down() -> None:
    item = item_of("s", WHERE, [RHINE, ALPS, *many(38)], CORPUS)
    assert item is not None
    assert (item.made, item.positives) == (False, (RHINE,))
    assert [p.doc_id for p in item.negatives] == [
        *(f"d{n}" for n in range(12)),
        "d16",
        "d21",
        "d26",
        "d31",
        "d36",
    ]
    assert item.unsure == (ALPS,)  # with the answer, and not judged


def test_own_candidates_replace_bm25s() -> None:
    item = item_of("s", WHERE._replace(candidates=("rhine", "d1")), many(5), CORPUS)
    assert item is not None
    assert [p.doc_id for p in item.negatives] == ["d1"]


def test_passages_of_the_same_title_come_first() -> None:
    own = many(2, title="Rhine", name="own")
    item = item_of("s", WHERE, many(40), CORPUS, same_title=[RHINE, *own])
    assert item is not None
    assert [p.doc_id for p in item.negatives] == ["own0", "own1", *(f"d{n}" for n in range(10))]


@pytest.mark.parametrize(
    ("question", "ranked"),
    [(WHERE, [RHINE, ALPS]), (WHERE._replace(positives=frozenset({"lost"})), [ALPS, *many(3)])],
)
def test_without_a_negative_or_a_positive_there_is_no_item(
    question: Question, ranked: list[SetPassage]
) -> None:
    assert item_of("s", question._replace(answers=("Swiss",)), ranked, CORPUS) is None


def test_of_many_positives_some_are_taken_by_their_hashes() -> None:
    asked = WHERE._replace(positives=frozenset(f"d{n}" for n in range(9)))
    first, again, other = (item_of("s", asked, many(20), CORPUS, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first is not None
    assert other is not None
    assert len(first.positives) == 4
    assert first.positives != other.positives


def test_a_made_query_needs_three_other_passages() -> None:
    item = made_item("s", "rhine alps", RHINE, [RHINE, *many(3)])
    assert item == Item("s", True, "rhine alps", (RHINE,), tuple(many(3)))
    assert made_item("s", "rhine alps", RHINE, [RHINE, *many(2)]) is None


def test_a_step_draws_the_same_items_and_in_their_shares() -> None:
    items = [
        Item(name, made, f"{name} {n}", tuple(many(3, name="p")), tuple(many(9)))
        for name in ("nq", "musique")
        for made in (False, True)
        for n in range(5)
    ]
    kinds = by_kind(items)
    draw = Draw(queries=8, made=0.25)
    assert drawn(kinds, 3, draw) == drawn(kinds, 3, draw) != drawn(kinds, 4, draw)
    steps = [one for step in range(300) for one in drawn(kinds, step, draw)]
    assert {(len(one.positives), len(one.negatives)) for one in steps} == {(2, 6)}
    counts = Counter((one.item.set, one.item.made) for one in steps)
    assert counts["nq", True] / len(steps) == pytest.approx(0.22 / 0.36 * 0.25, abs=0.03)
    assert counts["musique", False] / len(steps) == pytest.approx(0.14 / 0.36 * 0.75, abs=0.03)


def test_where_a_set_has_no_item_of_a_kind_the_other_kind_is_drawn() -> None:
    kinds = by_kind([Item("nq", False, "q", (RHINE,), (ALPS,))])
    assert {one.item.query for one in drawn(kinds, 1, Draw(made=1.0))} == {"q"}
