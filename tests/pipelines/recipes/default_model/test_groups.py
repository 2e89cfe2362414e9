import json
import random
from collections import Counter

import pytest

from pipelines.recipes.default_model.groups import (
    TAG_SHARES,
    Question,
    SetPassage,
    TrainingGroup,
    batches,
    build_groups,
    eligible_negatives,
    hold_out,
    holds_answer,
    mixed,
    read_set,
    rendered,
    sample_negatives,
    share_positives,
    shown_tags,
    tag_mode,
)
from rerank_core.features.render import special_tokens

RHINE = SetPassage(
    "rhine", "Rhine", "The Rhine rises in the Swiss Alps. It flows to the North Sea at Rotterdam."
)
DANUBE = SetPassage(
    "danube", "Danube", "The Danube rises in the Black Forest. It flows east to the Black Sea."
)
ELBE = SetPassage(
    "elbe", "Elbe", "The Elbe rises in the Giant Mountains and reaches the North Sea near Cuxhaven."
)
ALPS = SetPassage("alps", "Alps", "The Swiss Alps feed the Rhine and the Rhone.")
SEINE = SetPassage("seine", "Seine", "The Seine flows through Paris.")
CORPUS = {p.doc_id: p for p in (RHINE, DANUBE, ELBE, ALPS, SEINE)}
WHERE = Question("q1", "Where does the Rhine rise?", ("Swiss Alps",), frozenset({"rhine"}), ())


def many(count: int, *, title: str = "") -> list[SetPassage]:
    return [SetPassage(f"d{i}", title, f"text {i}") for i in range(count)]


def question(name: str, text: str = "", positives: tuple[str, ...] = ("rhine",)) -> Question:
    return Question(name, text or name, (), frozenset(positives), ())


class TestReadSet:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "rivers"
        (folder / "qrels").mkdir(parents=True)
        rows = [{"_id": p.doc_id, "title": p.title, "text": p.text} for p in CORPUS.values()]
        (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
        queries = [
            {
                "_id": "q1",
                "text": "Where does it rise?",
                "answers": ["Alps"],
                "split": "train",
                "candidates": ["elbe"],
            },
            {"_id": "q2", "text": "Held for dev", "answers": [], "split": "dev"},
            {"_id": "q3", "text": "Nobody judged", "answers": [], "split": "train"},
        ]
        (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
        head = "query-id\tcorpus-id\tscore\n"
        (folder / "qrels" / "train.tsv").write_text(head + "q1\trhine\t2\nq1\telbe\t0\nq2\tseine\t1\n")
        return folder

    def test_takes_judged_queries_of_the_split_only(self, folder):
        found = read_set(folder, split="train")
        assert found.questions == (
            Question("q1", "Where does it rise?", ("Alps",), frozenset({"rhine"}), ("elbe",)),
        )
        assert found.corpus["seine"] == SEINE
        assert found.name == "rivers"

    def test_without_a_split_the_judged_queries_are_taken(self, folder):
        queries = [{"_id": "q1", "text": "Where does it rise?"}, {"_id": "q9", "text": "Nobody judged"}]
        (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
        (only,) = read_set(folder, split="train").questions
        assert only == Question("q1", "Where does it rise?", (), frozenset({"rhine"}), ())

    def test_relevant_is_the_lowest_grade_that_counts(self, folder):
        assert read_set(folder, split="train", relevant=3).questions == ()

    def test_names_a_candidate_that_the_corpus_lacks(self, folder):
        (folder / "corpus.jsonl").write_text(json.dumps({"_id": "rhine", "text": "t"}))
        with pytest.raises(KeyError, match="query q1 names elbe"):
            read_set(folder, split="train")


class TestHoldOut:
    def test_parts_do_not_overlap_and_repeat(self):
        questions = [question(f"q{i}") for i in range(20)]
        kept, out = hold_out(questions, count=5, seed=7)
        assert len(out) == 5
        assert sorted(kept + out) == sorted(questions)
        assert hold_out(questions[::-1], count=5, seed=7)[1] == out[::-1]

    def test_questions_of_the_same_words_stay_together(self):
        questions = [
            question(f"q{i}", text) for i, text in enumerate(["Who?", "who", "Where", "When", "WHO ?"])
        ]
        kept, out = hold_out(questions, count=1, seed=1)
        assert not {q.text.strip(" ?").lower() for q in kept} & {q.text.strip(" ?").lower() for q in out}

    def test_never_takes_more_than_half(self):
        assert len(hold_out([question(f"q{i}") for i in range(4)], count=100, seed=7)[1]) == 2

    def test_nothing_from_nothing(self):
        assert hold_out([], count=5, seed=7) == ([], [])


def test_share_positives_joins_spellings_of_one_question():
    asked = [
        question("a", "What is kept?", ("rhine",)),
        question("b", "what is kept", ("elbe",)),
        question("c"),
    ]
    a, b, c = share_positives(asked)
    assert a.positives == b.positives == {"rhine", "elbe"}
    assert c.positives == {"rhine"}


@pytest.mark.parametrize(
    ("text", "answer", "holds"),
    [
        ("It rises in the Swiss Alps.", "swiss alps", True),
        ("The alphabet", "Alpha", False),  # whole words
        ("Yes, it does", "yes", False),  # tells nothing
        ("Chapter 7 of 9", "7", False),  # too short
        ("In 1887, he", "1887", True),
        ("Anything", "...", False),
    ],
)
def test_holds_answer(text, answer, holds):
    assert holds_answer(text, [answer]) is holds


class TestNegatives:
    def test_positives_answers_and_twins_are_no_negatives(self):
        twin = RHINE._replace(doc_id="twin")
        assert eligible_negatives(WHERE, [RHINE, twin, ALPS, DANUBE, ELBE]) == [DANUBE, ELBE]

    def test_sample_takes_one_from_far_and_keeps_the_order(self):
        pool = many(50)
        found = sample_negatives(pool, count=6, hard=30, generator=random.Random(1))
        places = [pool.index(p) for p in found]
        assert places == sorted(places)
        assert sum(place >= 30 for place in places) == 1
        assert len(found) == 6

    def test_sample_takes_what_there_is(self):
        assert sample_negatives(many(3), count=6, hard=30, generator=random.Random(1)) == many(3)
        assert sample_negatives([], count=6, hard=30, generator=random.Random(1)) == []

    def test_prefer_title_moves_the_document_asked_about_to_the_front(self):
        pool = many(40) + [SetPassage(f"own{i}", "shop.example", "t") for i in range(3)]
        found = sample_negatives(
            pool, count=3, hard=3, generator=random.Random(1), prefer_title="shop.example"
        )
        assert sum(p.title == "shop.example" for p in found) == 2  # and the easy one


class TestBuildGroups:
    def test_positive_stands_first_and_ranks_are_bm25s(self):
        (group,) = build_groups("rivers", WHERE, [DANUBE, RHINE, ALPS, ELBE], CORPUS)
        assert group.passages == (RHINE, DANUBE, ELBE)
        assert group.bm25_ranks == (2, 1, 4)
        assert group.kind == "rivers"

    def test_own_candidates_replace_bm25s(self):
        own = WHERE._replace(candidates=("rhine", "seine"))
        (group,) = build_groups("rivers", own, [DANUBE, ELBE], CORPUS)
        assert group.passages == (RHINE, SEINE)
        assert group.bm25_ranks == (0, 0)

    def test_a_group_a_positive_up_to_the_limit(self):
        asked = WHERE._replace(answers=(), positives=frozenset({"rhine", "elbe", "seine"}))
        groups = build_groups("rivers", asked, [DANUBE, ALPS], CORPUS, max_positives=2)
        assert len({g.passages[0] for g in groups}) == 2
        assert all(g.passages[1:] == (DANUBE, ALPS) for g in groups)

    def test_without_negatives_no_group(self):
        assert build_groups("rivers", WHERE, [RHINE, ALPS], CORPUS) == []

    def test_a_positive_missing_from_the_corpus_is_passed_over(self):
        assert build_groups("rivers", WHERE._replace(positives=frozenset({"lost"})), [ELBE], CORPUS) == []

    def test_the_same_inputs_give_the_same_groups(self):
        ranked = many(60)
        assert build_groups("s", WHERE, ranked, CORPUS) == build_groups("s", WHERE, ranked, CORPUS)
        assert build_groups("s", WHERE, ranked, CORPUS, seed=8) != build_groups("s", WHERE, ranked, CORPUS)


class TestTagsShown:
    def test_modes_come_in_their_shares(self):
        counts = Counter(tag_mode(f"g{i}", epoch=0, seed=7) for i in range(4000))
        assert [counts[m] / 4000 for m in ("plain", "true", "shuffled")] == pytest.approx(
            TAG_SHARES, abs=0.03
        )

    def test_plain_shows_nothing(self):
        assert shown_tags("Rhine", [RHINE, ELBE], mode="plain", key="k") == [None, None]

    def test_shuffled_deals_out_the_true_ones(self):
        passages = [RHINE, DANUBE, ELBE, ALPS, SEINE]
        true = shown_tags("Where does the Rhine rise?", passages, mode="true", key="k")
        dealt = [
            shown_tags("Where does the Rhine rise?", passages, mode="shuffled", key=f"k{i}") for i in range(5)
        ]
        assert all(sorted(d) == sorted(true) for d in dealt)
        assert any(d != true for d in dealt)

    def test_an_unknown_mode_is_refused(self):
        with pytest.raises(ValueError, match="no tag mode 'forged'; choose one of plain, true, shuffled"):
            shown_tags("Rhine", [RHINE], mode="forged", key="k")

    def test_rendered_puts_the_tags_before_the_query(self):
        (first,) = rendered("Rhine", [RHINE], shown_tags("Rhine", [RHINE], mode="true", key="k"))
        assert first.query.startswith(tuple(special_tokens()))
        assert first.query.endswith(" Rhine")
        assert first.passage == f"Rhine {RHINE.text}"


def groups_of(kind: str, count: int) -> list[TrainingGroup]:
    return [TrainingGroup(f"{kind}/{i}", kind, "q", (RHINE, ELBE), (1, 2)) for i in range(count)]


def test_the_order_depends_on_the_seed_alone():
    groups = groups_of("a", 10)
    assert mixed(groups, seed=7) == mixed(groups[::-1], seed=7) != mixed(groups, seed=8)
    assert sorted(mixed(groups, seed=7)) == sorted(groups)


def test_batches_hold_each_group_once_and_differ_by_epoch():
    groups = groups_of("a", 70)
    first, again, second = (
        batches(groups, size=8, epoch=e, seed=7, length=lambda g: len(g.group_id)) for e in (0, 0, 1)
    )
    assert sorted(g for b in first for g in b) == sorted(groups)
    assert max(map(len, first)) == 8
    assert first == again != second
