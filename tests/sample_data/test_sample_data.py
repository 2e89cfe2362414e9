"""Checks of the bundled sample data: consistency, size, and the reproducibility of the query log."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType

import pytest

DATA_DIR = Path(__file__).resolve().parents[2] / "sample_data"


def read_jsonl(name: str) -> list[dict]:
    """Read a JSON Lines file of the sample data."""
    return [json.loads(line) for line in (DATA_DIR / name).read_text(encoding="utf-8").splitlines()]


def read_tsv(name: str) -> list[dict[str, str]]:
    """Read a tab-separated file of the sample data, one dictionary a row."""
    header, *rows = (DATA_DIR / name).read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]


@pytest.fixture(scope="module")
def corpus() -> dict[str, dict]:
    """Passages by doc id."""
    return {row["_id"]: row for row in read_jsonl("corpus.jsonl")}


@pytest.fixture(scope="module")
def queries() -> dict[str, dict]:
    """Queries by query id."""
    return {row["_id"]: row for row in read_jsonl("queries.jsonl")}


@pytest.fixture(scope="module")
def qrels() -> dict[str, set[str]]:
    """Relevant doc ids by query id."""
    relevant: dict[str, set[str]] = defaultdict(set)
    for row in read_tsv("qrels/dev.tsv"):
        relevant[row["query-id"]].add(row["corpus-id"])
    return relevant


@pytest.fixture(scope="module")
def sentence_qrels() -> dict[str, dict[str, set[int]]]:
    """Supporting sentences by query id and doc id."""
    support: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for row in read_tsv("sentence_qrels/dev.tsv"):
        support[row["query-id"]][row["corpus-id"]].add(int(row["sentence"]))
    return support


@pytest.fixture(scope="module")
def log() -> list[dict]:
    """Events of the query log."""
    return read_jsonl("query_log.jsonl")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The log generator, loaded from its file."""
    spec = importlib.util.spec_from_file_location("sample_data_generate_log", DATA_DIR / "generate_log.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_ids_are_unique() -> None:
    for name in ("corpus.jsonl", "queries.jsonl"):
        ids = [row["_id"] for row in read_jsonl(name)]
        assert len(ids) == len(set(ids))
    titles = [row["title"] for row in read_jsonl("corpus.jsonl")]
    assert len(titles) == len(set(titles))
    for name, keys in (
        ("qrels/dev.tsv", ("query-id", "corpus-id")),
        ("sentence_qrels/dev.tsv", ("query-id", "corpus-id", "sentence")),
    ):
        rows = [tuple(row[key] for key in keys) for row in read_tsv(name)]
        assert len(rows) == len(set(rows))


def test_counts(corpus: dict, queries: dict, qrels: dict, log: list) -> None:
    assert len(corpus) >= 200
    assert len(queries) >= 80
    assert sum(len(doc_ids) == 2 for doc_ids in qrels.values()) >= 40
    assert len(log) == 3000


def test_headers() -> None:
    assert list(read_tsv("qrels/dev.tsv")[0]) == ["query-id", "corpus-id", "score"]
    assert list(read_tsv("sentence_qrels/dev.tsv")[0]) == ["query-id", "corpus-id", "sentence", "score"]
    for name in ("qrels/dev.tsv", "sentence_qrels/dev.tsv"):
        assert {row["score"] for row in read_tsv(name)} == {"1"}


def test_text_is_the_joined_sentences(corpus: dict) -> None:
    for doc_id, row in corpus.items():
        assert list(row) == ["_id", "title", "text", "sentences"], doc_id
        assert row["text"] == " ".join(row["sentences"]), doc_id
        assert 3 <= len(row["sentences"]) <= 6, doc_id
        assert 45 <= len(row["text"].split()) <= 110, doc_id
        assert all(s == s.strip() and s[-1] in ".?!" for s in row["sentences"]), doc_id


def test_query_fields(queries: dict, qrels: dict) -> None:
    for query_id, row in queries.items():
        assert list(row) == ["_id", "text", "answers", "type", "split"], query_id
        assert row["split"] == "dev"
        assert row["answers"]
        assert row["type"] in {"single", "bridge", "comparison"}
        assert len(qrels[query_id]) == (1 if row["type"] == "single" else 2), query_id


def test_qrels_refer_to_the_data(corpus: dict, queries: dict, qrels: dict, sentence_qrels: dict) -> None:
    assert set(qrels) == set(queries)
    assert set(sentence_qrels) == set(queries)
    for query_id, doc_ids in qrels.items():
        assert doc_ids <= set(corpus), query_id
        assert set(sentence_qrels[query_id]) == doc_ids, query_id
        for doc_id, places in sentence_qrels[query_id].items():
            assert places <= set(range(len(corpus[doc_id]["sentences"]))), (query_id, doc_id)


def test_answers_occur_in_gold_passages(
    corpus: dict, queries: dict, qrels: dict, sentence_qrels: dict
) -> None:
    for query_id, row in queries.items():
        gold = [f"{corpus[d]['title']}\n{corpus[d]['text']}" for d in qrels[query_id]]
        for answer in row["answers"]:
            assert any(answer in text for text in gold), (query_id, answer)
        support = [corpus[d]["sentences"][n] for d, ns in sentence_qrels[query_id].items() for n in ns]
        assert any(answer in sentence for answer in row["answers"] for sentence in support), query_id


def test_generator_reproduces_the_log(generator: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "query_log.jsonl"
    generator.main(["--out", str(out)])
    assert out.read_bytes() == (DATA_DIR / "query_log.jsonl").read_bytes()
    explicit = tmp_path / "explicit.jsonl"
    arguments = ["--seed", "7", "--events", "3000", "--days", "7", "--start", "2026-03-02"]
    generator.main([*arguments, "--out", str(explicit)])
    assert explicit.read_bytes() == out.read_bytes()


def test_generator_arguments(generator: ModuleType) -> None:
    start = dt.date(2026, 5, 1)
    records = generator.generate(seed=1, events=200, days=3, start=start)
    assert len(records) == 200
    days = {dt.date.fromisoformat(record["timestamp"][:10]) for record in records}
    assert days == {start + dt.timedelta(days=day) for day in range(3)}
    assert records != generator.generate(seed=2, events=200, days=3, start=start)


def test_log_times(log: list) -> None:
    times = [dt.datetime.strptime(event["timestamp"], "%Y-%m-%dT%H:%M:%SZ") for event in log]
    assert times == sorted(times)
    first = dt.date(2026, 3, 2)
    assert {time.date() for time in times} == {first + dt.timedelta(days=day) for day in range(7)}
    hours = Counter(time.hour for time in times)
    night = (22, 23, 0, 2, 4, 5, 6, 7)  # the hours in which no heavy user is busy
    assert sum(hours[hour] for hour in range(9, 17)) > 3 * sum(hours[hour] for hour in night)


def test_log_fields(log: list, corpus: dict) -> None:
    for event in log:
        assert list(event) == ["timestamp", "query", "user", "clicks", "impressions"]
        shown, clicks = event["impressions"], event["clicks"]
        assert 0 < len(shown) <= 10
        assert len(shown) == len(set(shown))
        assert set(shown) <= set(corpus)
        assert clicks == [doc_id for doc_id in shown if doc_id in set(clicks)]
        assert int(event["user"], 16) >= 0


def test_log_queries(log: list, queries: dict, generator: ModuleType) -> None:
    """Frequencies are skewed, most variants normalise to a known query, and about 6 % are misspelt."""
    known = {generator.normalise(row["text"]) for row in queries.values()}
    assert len(known) == len(queries)
    counts = Counter(generator.normalise(event["query"]) for event in log)
    misspelt = sum(count for query, count in counts.items() if query not in known)
    assert 0.045 <= misspelt / len(log) <= 0.075
    frequent = sorted((counts[query] for query in known), reverse=True)
    assert sum(frequent[:10]) > 2 * sum(frequent[-30:])
    assert len({event["query"] for event in log}) > 2 * len(counts)


def test_clicks_are_position_biased(log: list, queries: dict, qrels: dict, generator: ModuleType) -> None:
    by_text = {generator.normalise(row["text"]): query_id for query_id, row in queries.items()}
    heavy = {generator.user_hash(name) for name in ("monitor", "scraper", "crawler")}
    assert heavy <= {event["user"] for event in log}
    shown: Counter[tuple[bool, int]] = Counter()
    clicked: Counter[tuple[bool, int]] = Counter()
    for event in log:
        query_id = by_text.get(generator.normalise(event["query"]))
        if query_id is None or event["user"] in heavy:
            continue
        for rank, doc_id in enumerate(event["impressions"], start=1):
            key = (doc_id in qrels[query_id], min(rank, 4))
            shown[key] += 1
            clicked[key] += doc_id in event["clicks"]
    assert min(shown[True, 1], shown[True, 4]) > 100
    rate = {key: clicked[key] / shown[key] for key in shown}
    assert rate[True, 1] > 3 * rate[True, 4]
    assert rate[True, 1] > 3 * rate[False, 1]
    assert rate[False, 1] > rate[False, 4]
