"""The embedded BM25 index: building it, and a real one searched."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.sources.local.bm25_index import METADATA, LocalIndex, build_index
from rerank_core.errors import SourceError
from tests.support.local_data import CORPUS, build, write_lines


def found(index: LocalIndex, text: str, *, top_k: int = 10) -> list[str]:
    (documents,) = index.search([text], top_k=top_k)
    return [document.doc_id for document in documents]


# --- build_index


def test_a_beir_folder_and_its_corpus_file_give_one_index(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpus.jsonl", CORPUS)
    report = build_index(tmp_path, tmp_path / "a" / "index")
    other = build_index(tmp_path / "corpus.jsonl", tmp_path / "b")
    assert (report.documents, report.rejected, report.path) == (4, {}, tmp_path / "a" / "index")
    assert report.fingerprint == other.fingerprint
    opened = LocalIndex(report.path)
    assert (opened.documents, opened.fingerprint) == (4, report.fingerprint)


def test_progress_adds_up_to_the_lines(tmp_path: Path) -> None:
    progress: list[int] = []
    corpus = write_lines(tmp_path / "corpus.jsonl", [{"_id": n, "text": "a"} for n in range(2500)])
    build_index(corpus, tmp_path / "index", on_progress=progress.append)
    assert progress == [1000, 1000, 500]


def test_bad_lines_are_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
    lines = [
        {"_id": "a", "text": "kept"},
        '{"_id": "b", "text": ',
        "[1]",
        {"text": "no id"},
        {"_id": " ", "text": "blank id"},
        {"_id": "c", "title": None, "text": " "},
        {"_id": "d", "text": ["a", "b"]},
        {"_id": "e", "text": "a", "sentences": ["a", 1]},
        {"_id": "a", "text": "again"},
        {"_id": 7, "title": "only a title"},
        '{"_id": "f", "text": "lone \\ud800 surrogate"}',
        "",
    ]
    report = build_index(write_lines(tmp_path / "corpus.jsonl", lines), tmp_path / "index")
    assert report.documents == 3
    assert report.rejected == {"bad_field": 2, "bad_json": 3, "duplicate_id": 1, "empty": 1, "no_id": 2}
    rejected = [json.loads(line) for line in (tmp_path / "index" / "rejected.jsonl").read_text().splitlines()]
    assert len(rejected) == sum(report.rejected.values())
    assert rejected[0]["record"] == "corpus.jsonl:2"
    assert all(entry["reason"] in report.rejected and entry["detail"] for entry in rejected)
    opened = LocalIndex(tmp_path / "index")
    assert found(opened, "kept again") == ["a"]
    assert opened.search(["surrogate"], top_k=1)[0][0].text == "lone  surrogate"
    assert found(opened, "only a title") == ["7"]


@pytest.mark.parametrize("changed", [{"_id": "x"}, {"title": "x"}, {"text": "x"}, {"sentences": ["x"]}])
def test_the_fingerprint_is_of_the_content(tmp_path: Path, changed: dict[str, Any]) -> None:
    corpus = write_lines(tmp_path / "corpus.jsonl", CORPUS)
    before = build_index(corpus, tmp_path / "index").fingerprint
    write_lines(corpus, [CORPUS[0] | changed, *CORPUS[1:]])
    assert build_index(corpus, tmp_path / "index").fingerprint != before
    assert LocalIndex(tmp_path / "index").fingerprint != before


def test_a_corpus_without_documents_leaves_the_old_index(tmp_path: Path) -> None:
    before = build(tmp_path, CORPUS)
    for lines in (["not json"], []):
        with pytest.raises(SourceError, match=r"none of its \d lines holds a document"):
            build_index(write_lines(tmp_path / "bad.jsonl", lines), tmp_path / "index")
    assert LocalIndex(tmp_path / "index").fingerprint == before.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "corpus.jsonl", "index"]


def thread_names() -> Iterator[str]:
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            yield path.read_text().strip()


def test_a_failed_build_has_ended_when_its_error_arrives(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as error:
        build_index(write_lines(tmp_path / "bad.jsonl", ["not json"]), tmp_path / "index")
    assert error.tb  # which keeps all that the build had open
    # The kernel lists a thread for a moment after it was joined; one that is kept open stays for ever.
    for _ in range(200):
        if not {"segment_updater", "thrd-tantivy-in"} & set(thread_names()):
            return
        time.sleep(0.05)
    pytest.fail("the failed build's threads live on, and would write into the folder")


def test_an_interrupted_build_leaves_no_index(tmp_path: Path) -> None:
    def interrupt(lines: int) -> None:
        raise KeyboardInterrupt

    corpus = write_lines(tmp_path / "corpus.jsonl", CORPUS)
    with pytest.raises(KeyboardInterrupt):
        build_index(corpus, tmp_path / "index", on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_what_is_no_index_is_not_overwritten(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.jsonl", CORPUS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(SourceError, match="nothing was changed"):
        build_index(corpus, tmp_path / "mine")
    with pytest.raises(SourceError, match="is a file"):
        build_index(corpus, corpus)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    assert build_index(corpus, tmp_path / "empty").documents == 4


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no corpus at .*corpus\.jsonl"):
        build_index(tmp_path, tmp_path / "index")


# --- LocalIndex


def test_missing_and_damaged_indexes_say_what_to_do(tmp_path: Path) -> None:
    build(tmp_path, CORPUS)
    folder, metadata = tmp_path / "index", tmp_path / "index" / METADATA
    whole = json.loads(metadata.read_text())
    for content, message in [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        (json.dumps(whole | {"format": 99}), "has format 99, this version reads 2"),
        (json.dumps(whole | {"documents": None}), "is damaged"),
        (json.dumps(whole | {"documents": 5}), "holds 4 documents.*says 5"),
        (json.dumps(whole | {"language": "xx"}), "is damaged.*unknown language 'xx'"),
        (json.dumps(whole | {"language": ["en"]}), "is damaged.*unknown language"),
    ]:
        metadata.write_text(content)
        with pytest.raises(SourceError, match=f"{message}.*nightrank index CORPUS --to {folder}"):
            LocalIndex(folder)
    metadata.write_text(json.dumps(whole))
    next((folder / "tantivy").glob("*.store")).unlink()
    with pytest.raises(SourceError, match="is damaged"):
        LocalIndex(folder)
    metadata.unlink()
    with pytest.raises(SourceError, match=f"is not a Nightrank index.*{METADATA}"):
        LocalIndex(folder)
    with pytest.raises(SourceError, match=r"no index at .*nightrank index"):
        LocalIndex(tmp_path / "nowhere")


def test_documents_come_back_whole(index: LocalIndex) -> None:
    (documents,) = index.search(["rock"], top_k=5)
    (document,) = documents
    assert document[:4] == ("who", "The Who", "An English rock band.", ("An English rock band.",))
    assert document.bm25_score > 0
    assert document.bm25_rank == 1


def test_the_score_is_bm25_of_text_and_boosted_title(tmp_path: Path) -> None:
    def bm25(times: int, length: int, mean: float, *, holders: int) -> float:
        idf = math.log(1 + (3 - holders + 0.5) / (holders + 0.5))
        return idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / mean))

    records = [
        {"_id": "a", "title": "mango", "text": "x y z"},
        {"_id": "b", "title": "x y", "text": "mango and mango"},
        {"_id": "c", "title": "x y z", "text": "x y z x y z"},
    ]
    (documents,) = build(tmp_path, records).search(["mango MANGO"], top_k=3, title_boost=3.0)
    scores = {document.doc_id: document.bm25_score for document in documents}
    in_title = bm25(1, 1, 2.0, holders=1)
    mean = (4 + 5 + 9) / 3  # of title and text together
    assert scores == pytest.approx(
        {"a": bm25(1, 4, mean, holders=2) + 2 * in_title, "b": bm25(2, 5, mean, holders=2)}, abs=1e-4
    )


def test_words_match_by_their_stems(index: LocalIndex) -> None:
    assert found(index, "run") == ["run"]
    assert found(index, "BANDS") == ["band", "who"]


def test_stop_words_count_only_where_there_is_nothing_else(index: LocalIndex) -> None:
    assert found(index, "the cat was") == ["cat"]
    assert set(found(index, "was the")) == {"run", "who"}
    assert found(index, "the who") == ["who"]


def test_the_title_boost_changes_the_order(tmp_path: Path) -> None:
    records = [
        {"_id": "text", "title": "x", "text": "mango mango mango"},
        {"_id": "title", "title": "mango", "text": "x x x"},
        {"_id": "none", "title": "y", "text": "y"},
    ]
    index = build(tmp_path, records)
    for boost, first in [(9.0, "title"), (1.0, "text")]:
        (documents,) = index.search(["mango"], top_k=3, title_boost=boost)
        assert documents[0].doc_id == first
    with pytest.raises(ValueError, match=r"title_boost is 0\.5"):
        index.search(["mango"], top_k=3, title_boost=0.5)


def test_stop_words_count_on_demand(index: LocalIndex) -> None:
    (documents,) = index.search(["the cat was"], top_k=9, ignore_stop_words=False)
    assert {document.doc_id for document in documents} == {"cat", "run", "who"}


# --- languages

PASSAGES = {  # language: passage, and queries of words of it
    "de": ("Die Häuser der Straße sind alt und nicht für alle offen.", ["haus", "STRASSE", "offene"]),
    "fr": ("Les chevaux mangent de l'herbe dans les prés et ne sont pas à nous.", ["herbe", "cheval"]),
    "ru": ("Собаки и кошки не всегда живут в одном доме.", ["собака", "домов"]),
    "zh": ("我家的猫昨天在东京塔下面睡觉。", ["猫", "东京", "东京塔在哪里"]),
    "ja": ("素早い茶色の狐は怠け者のイヌを飛び越える。", ["狐", "ｲﾇ", "茶色のキツネ"]),
    "ko": ("서울역 근처에서 물을 마셨다.", ["서울", "물", "역"]),
    "th": ("สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ", ["สุนัข", "สีน้ำตาล", "ขี้เกียจ"]),
    "none": ("Szybki brązowy lis przeskakuje nad leniwym psem.", ["lis", "BRĄZOWY"]),
}


@pytest.mark.parametrize("language", PASSAGES)
def test_a_corpus_is_searched_in_its_language(tmp_path: Path, language: str) -> None:
    text, queries = PASSAGES[language]
    others = {name: {"_id": name, "text": passage} for name, (passage, _) in PASSAGES.items()}
    alone = build(tmp_path, [{"_id": "own", "text": text}])
    assert alone.language == language
    assert [found(alone, query) for query in queries] == [["own"]] * len(queries)
    build_index(
        write_lines(tmp_path / "all.jsonl", list(others.values())), tmp_path / "all", language=language
    )
    mixed = LocalIndex(tmp_path / "all")
    assert [found(mixed, query)[:1] for query in queries] == [[language]] * len(queries)


def test_queries_may_be_in_another_language_than_the_corpus(tmp_path: Path) -> None:
    records = [
        {"_id": "zh", "text": "我的 iPhones 和 PyTorch 模型运行得很慢，我们正在寻找原因。"},
        {"_id": "other", "text": "今天东京的天气很好。"},
    ]
    index = build(tmp_path, records)
    assert index.language == "zh"
    assert found(index, "why is the iPhone slow") == ["zh"]
    english = build(
        tmp_path / "en", [*CORPUS, {"_id": "zh", "text": "The band of the town 東京事変 and its songs"}]
    )
    assert english.language == "en"
    assert found(english, "東京") == ["zh"]


def test_the_language_is_that_of_the_whole_corpus_compressed_or_not(tmp_path: Path) -> None:
    """The first passages of a corpus that is sorted may be in another one than most."""
    french, german = PASSAGES["fr"][0], PASSAGES["de"][0]
    records = [{"_id": n, "text": french if n < 1000 else german} for n in range(4000)]
    write_lines(tmp_path / "corpus.jsonl", records)
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress((tmp_path / "corpus.jsonl").read_bytes()))
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        assert build_index(tmp_path / name, tmp_path / "index").language == "de"


def test_the_language_is_a_choice_and_part_of_the_fingerprint(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "corpus.jsonl", [{"_id": "a", "text": "Cats run."}])
    reports = [build_index(corpus, tmp_path / name, language=name) for name in ("en", "none", "cjk")]
    assert [report.language for report in reports] == ["en", "none", "cjk"]
    assert len({report.fingerprint for report in reports}) == 3
    assert [found(LocalIndex(report.path), "cat") for report in reports] == [["a"], [], ["a"]]
    with pytest.raises(SourceError, match="no language 'klingon'; choose one of auto, none, ar"):
        build_index(corpus, tmp_path / "x", language="klingon")


@pytest.mark.parametrize(
    "text",
    [
        'AND OR NOT "quotes" (parens) title:* ~ ^ \\',
        "cat AND",
        'cat "',
        "cat (((",
        "title:cat",
        "+cat -cat",
        "cat~2 cat^9",
        "/cat.*/",
        "[cat TO dog}",
        "cat 😀",
        "cat \ud800\x00",
        "cat " * 500,
        "c" * 5000 + " cat",
    ],
)
def test_text_is_never_query_syntax(index: LocalIndex, text: str) -> None:
    assert set(found(index, text)) <= {"cat"}
    assert ("cat" in text) == ("cat" in found(index, text))


@pytest.mark.parametrize("text", ["", "?!", "😀", "\ud800", '"*"', "zebra"])
def test_no_word_of_the_index_gives_no_document(index: LocalIndex, text: str) -> None:
    assert found(index, text) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.integers(1, 4))
def test_any_text_can_be_searched(index: LocalIndex, text: str, top_k: int) -> None:
    (documents,) = index.search([text], top_k=top_k)
    assert [document.bm25_rank for document in documents] == list(range(1, len(documents) + 1))
    assert len(documents) <= top_k
    order = [(-document.bm25_score, document.doc_id) for document in documents]
    assert order == sorted(order)


def test_a_tie_at_the_cut_is_decided_by_doc_id(tmp_path: Path) -> None:
    records = [{"_id": f"d{n:03}", "text": "same words"} for n in range(300)]
    records += [
        {"_id": "top", "text": "same words words"},
        {"_id": "low", "text": "same other thing entirely"},
    ]
    index = build(tmp_path, records[::-1])
    for top_k in (1, 2, 7, 100, 301, 302, 400):
        expected = ["top", *(f"d{n:03}" for n in range(300)), "low"][:top_k]
        assert found(index, "same words", top_k=top_k) == expected
