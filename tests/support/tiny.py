"""A night small enough to read: twelve passages, a log of fourteen lines, and what to look at afterwards."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import Config, parse_config
from schemas.manifest import Manifest
from schemas.tables import TABLES

DAY = datetime.date(2026, 3, 8)  # the window of seven days opens on 2 March
TIME = "2026-03-05T10:00:00Z"

_PASSAGES = {
    "dune": ("Dune", ["Dune is a novel by Frank Herbert.", "It was published in 1965."]),
    "messiah": ("Dune Messiah", ["Dune Messiah is a novel by Frank Herbert.", "It follows Dune."]),
    "herbert": ("Frank Herbert", ["Frank Herbert was born in Tacoma.", "He wrote for newspapers."]),
    "tacoma": ("Tacoma", ["Tacoma is a city in Washington.", "It lies on Puget Sound."]),
    "seattle": ("Seattle", ["Seattle is a city in Washington.", "It lies north of Tacoma."]),
    "sound": ("Puget Sound", ["Puget Sound is an inlet of the Pacific.", "Seattle lies on it."]),
    "lem": ("Stanislaw Lem", ["Stanislaw Lem was born in Lviv.", "He wrote Solaris, a novel."]),
    "solaris": ("Solaris", ["Solaris is a novel by Stanislaw Lem.", "An ocean covers its planet."]),
    "asimov": ("Isaac Asimov", ["Isaac Asimov wrote Foundation.", "He taught in Boston."]),
    "foundation": ("Foundation", ["Foundation is a novel by Isaac Asimov.", "An empire falls in it."]),
    "rain": ("", ["Rain falls because warm air rises.", "The air cools and therefore water condenses."]),
    "snow": ("Snow", ["Snow falls where the air is cold.", "It melts in spring."]),
}
CORPUS: list[dict[str, Any]] = [
    {"_id": doc_id, "title": title, "text": " ".join(sentences), "sentences": sentences}
    for doc_id, (title, sentences) in _PASSAGES.items()
]


def event(query: Any, *clicks: str, at: str = TIME, user: str = "u1") -> dict[str, Any]:
    """One line of a log."""
    return {"timestamp": at, "query": query, "user": user, "clicks": list(clicks), "impressions": []}


GOOD_LOG: list[Any] = [
    event("Who wrote Dune?", "dune"),
    event("who wrote dune", "dune", "herbert", user="u2"),
    event("Where was Frank Herbert born?", "herbert", at="2026-03-02T00:00:00Z"),
    event("solaris novel", "solaris", at="2026-03-08T23:59:59Z"),
    event("Why does rain fall?"),
    event("Seattle or Tacoma", "seattle"),
]
BAD_LOG: list[Any] = [
    event("a day too early", at="2026-03-01T23:59:59Z"),
    event("a moment too late", at="2026-03-09T00:00:00Z"),
    event(" ?! "),
    event("x" * 1001),
    '{"timestamp": "2026-03-05T10:00:00Z", "que',
    {"timestamp": TIME},
    event("no time", at="yesterday"),
    event("qqqq zzzz"),  # a good event, of a query that no document shares a word with
]
QUERIES = [
    "Who wrote Dune",
    "Where was Frank Herbert born",
    "solaris novel",
    "Why does rain fall",
    "Seattle or Tacoma",
]
REJECTS = {
    "ReadQueryLog/empty_query": 1,
    "ReadQueryLog/query_too_long": 1,
    "ReadQueryLog/bad_json": 1,
    "ReadQueryLog/missing_query": 1,
    "ReadQueryLog/bad_timestamp": 1,
    "FetchCandidates/no_candidates": 1,
}


class Tiny(NamedTuple):
    """Where the tiny night's inputs lie."""

    folder: Path
    index: Path
    log: Path  # good and bad lines
    good_log: Path


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """JSON lines; strings are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_beir(folder: Path, queries: dict[str, str], qrels: str = "query-id\tcorpus-id\tscore\n") -> Path:
    """CORPUS as a judged set in BEIR's layout, split dev."""
    write_lines(folder / "corpus.jsonl", CORPUS)
    write_lines(folder / "queries.jsonl", [{"_id": name, "text": text} for name, text in queries.items()])
    (folder / "qrels").mkdir()
    (folder / "qrels" / "dev.tsv").write_text(qrels)
    return folder


def make_tiny(folder: Path) -> Tiny:
    """Write the corpus and the logs, and build the index."""
    build_index(write_lines(folder / "corpus.jsonl", CORPUS), folder / "index")
    log = write_lines(folder / "log.jsonl", GOOD_LOG + BAD_LOG)
    return Tiny(folder, folder / "index", log, write_lines(folder / "good.jsonl", GOOD_LOG))


def make_config(tiny: Tiny, output: Path, /, **sections: dict[str, Any]) -> Config:
    """A night's configuration; `sections` are merged into it as the TOML's tables would be."""
    raw: dict[str, dict[str, Any]] = {
        "source": {"log": str(tiny.good_log), "index": str(tiny.index)},
        "output": {"path": str(output), "queries_per_shard": 2},
        "tags": {"recogniser": "rules"},  # goldens do not change with the weights of a model
    }
    for name, values in sections.items():
        raw[name] = raw.get(name, {}) | values
    return parse_config(raw)


def read_table(output: Path, manifest: Manifest, name: str) -> pa.Table:
    """A published table, whole, in the order of its files."""
    files = sorted((output / manifest.tables[name].path).glob("*.parquet"))
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


def rows(output: Path, manifest: Manifest, name: str = "reranked") -> list[dict[str, Any]]:
    """The rows of a published table."""
    found: list[dict[str, Any]] = read_table(output, manifest, name).to_pylist()
    return found


def published_bytes(output: Path, manifest: Manifest) -> dict[str, bytes]:
    """Every Parquet file of a run, by its place in the output folder."""
    return {
        str(file.relative_to(output)): file.read_bytes()
        for name in TABLES
        for file in sorted((output / manifest.tables[name].path).iterdir())
    }
