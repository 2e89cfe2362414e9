"""Look-ups of one query's list among a million: nightrank.read beside DuckDB and SQLite over the same rows.

    python -m benchmarks.lookup [--quick] [--json FILE] [--work DIR]

A run of 1,000,000 queries (`--quick`: 20,000) with 10 rows each is written by the writers of a night. Each contender
looks up random queries in a process of its own, and returns the same columns as Python values:

- read: nightrank.read, cold (a new Reader every 50 look-ups, so nothing of the library's is in memory) and warm;
- parquet: DuckDB over the files of `reranked`, as `nightrank sql` shows them;
- duckdb: a table of DuckDB's, in the order of the files, with an index on query_id;
- sqlite: a table of SQLite's with an index on query_id.

The operating system's file cache is left alone, for all of them. The contenders' databases hold the columns that
nightrank.read returns, and no others. `--work` keeps the run and the databases for the next call.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.common import SAMPLE, parser, peak_rss_mb, report
from rerank_core.text import normalise_query, query_id

QUERIES, QUICK = 1_000_000, 20_000
ROWS = 10  # of a query
PER_SHARD = 200  # output.queries_per_shard by default
SERIES, EACH = 40, 50  # cold look-ups: new readers, and look-ups of each
WARM = 100  # queries that are looked up again, which fit into the files kept open
COLUMNS = (
    "rank doc_id passage_id title text score hop role entities causal reasoning hop_chain evidence".split()
)


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--work", type=Path, metavar="DIR", help="keep the run and the databases here")
    flags.add_argument("--contender", help=argparse.SUPPRESS)
    chosen = flags.parse_args()
    count = QUICK if chosen.quick else QUERIES
    if chosen.contender:
        print(json.dumps(CONTENDERS[chosen.contender](chosen.work, count)))
        return
    with tempfile.TemporaryDirectory() as folder:
        report(measure(chosen.work or Path(folder), count), chosen.json)


def measure(work: Path, count: int) -> dict[str, float]:
    """Every figure, of a run of that many queries, which is written first unless it is there."""
    work.mkdir(parents=True, exist_ok=True)
    write_run(work, count)
    found = {name: _in_process(name, work, count) for name in CONTENDERS}
    figures = {f"{name}_{key}": value for name, each in found.items() for key, value in each.items()}
    figures |= {"lookup_ms_p50": figures["read_cold_ms_p50"], "lookup_ms_p99": figures["read_cold_ms_p99"]}
    for name in ("parquet", "duckdb", "sqlite"):
        for place in ("p50", "p99"):
            figures[f"{name}_over_read_{place}"] = (
                figures[f"{name}_ms_{place}"] / figures[f"lookup_ms_{place}"]
            )
    return figures | {"read_import_s": import_seconds()}


def _in_process(name: str, work: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.lookup", "--contender", name, "--work", str(work)]
    if count == QUICK:
        command.append("--quick")
    print(f"{name} ...", file=sys.stderr)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def import_seconds(times: int = 11) -> float:
    """Median seconds that `import nightrank.read` takes in a new process, without Python's own start."""
    code = "import time; t = time.perf_counter(); import nightrank.read; print(time.perf_counter() - t)"
    runs = (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True) for _ in range(times)
    )
    return statistics.median(float(run.stdout) for run in runs)


# --- the run


def text_of(number: int, words: list[str]) -> str:
    """A query's text: words by a Zipf-like draw, and its number, so that no two are equal."""
    draw = random.Random(number)
    chosen = (words[int(len(words) ** draw.random()) - 1] for _ in range(draw.randint(2, 6)))
    return normalise_query(f"{' '.join(chosen)} {number:x}")


def write_run(work: Path, count: int) -> None:
    """Publish a run of that many queries, unless there is one."""
    from pipelines.nightly.prepare import Run
    from pipelines.nightly.queries import merge_queries
    from pipelines.nightly.shards import shard_count
    from pipelines.nightly.sinks import file_name, write_lists
    from pipelines.storage import runs
    from tests.support.published_run import RUN_DATE, publish_staged

    output = work / "output"
    if (output / runs.POINTER).exists():
        return
    run = Run("bench", RUN_DATE, None, runs.staging(str(output), "bench"), None)
    words, passages = _words(), _passages()
    total = shard_count(count, PER_SHARD)
    shards: dict[int, list[tuple[str, str]]] = {number: [] for number in range(total)}
    for number in range(count):
        text = text_of(number, words)
        shards[int(query_id(text), 16) % total].append((query_id(text), text))
    for number, queries in shards.items():
        table = _lists(sorted(queries), passages, seed=number)
        counts = {id_: 1 + int(id_[:2], 16) // 128 for id_, _ in queries}
        write_lists(run, file_name(number, total), table, counts)
    start = time.perf_counter()
    merge_queries(run)
    print(f"queries merged in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    publish_staged(output, run, queries=count)


def _words() -> list[str]:
    lines = (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    words = {word for line in lines for word in json.loads(line)["text"].lower().split()}
    return sorted(words, key=lambda word: (len(word), word))


def _passages() -> pa.Table:
    """20,000 passages of two sentences each, with the tags of such."""
    lines = [json.loads(line) for line in (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    sentences = [sentence for line in lines for sentence in line["sentences"]]
    draw, rows = random.Random(0), []
    for number in range(20_000):
        two, titles = draw.sample(sentences, 2), [line["title"] for line in draw.sample(lines, 3)]
        rows.append(
            {
                "doc_id": f"d{number:07d}",
                "passage_id": f"d{number:07d}#{number % 3}",
                "title": f"{titles[0]} {number}",
                "text": " ".join(two),
                "role": ("Background", "Definition", "Method", "Result")[number % 4],
                "entities": titles,
                "causal": number % 5 == 0,
                "reasoning": number % 3 == 0,
                "hop": number % 4 - 1,
                "hop_chain": titles[: number % 3],
                "evidence": two[0] if number % 3 == 0 else None,
                "evidence_sentences": [0] if number % 3 == 0 else None,
            }
        )
    return pa.Table.from_pylist(rows)


def _lists(queries: list[tuple[str, str]], passages: pa.Table, *, seed: int) -> pa.Table:
    """Rows of `reranked` for some queries: random passages, scores that fall with the rank."""
    from schemas.tables import RERANKED

    draw = np.random.default_rng(seed)
    rows = len(queries) * ROWS
    ranks = np.tile(np.arange(1, ROWS + 1, dtype=np.int32), len(queries))
    logits = (6 - ranks + draw.normal(size=rows)).astype(np.float32)
    before = np.argsort(draw.random((len(queries), ROWS)), axis=1).astype(np.int32).reshape(-1) + 1
    picked = passages.take(pa.array(draw.integers(0, passages.num_rows, rows)))
    evidence = pa.array(logits, mask=picked["evidence"].is_null().to_numpy())
    computed = {
        "query_id": pa.array(np.repeat([id_ for id_, _ in queries], ROWS).tolist()),
        "query": pa.array(np.repeat([text for _, text in queries], ROWS).tolist()),
        "rank": ranks,
        "rank_before": before,
        "doc_rank": ranks,
        "doc_rank_before": before,
        "bm25_score": draw.gamma(8, 2, rows).astype(np.float32),
        "logit": logits,
        "score": (1 / (1 + np.exp(-logits))).astype(np.float32),
        "evidence_logit": evidence,
        "evidence_score": evidence,
        "overflow_tokens": np.zeros(rows, np.int32),
        "reused": draw.random(rows) < 0.8,
        "input_fingerprint": [draw.bytes(32).hex() for _ in range(rows)],
        "model_fingerprint": ["0123456789abcdef" * 4] * rows,
    }
    columns = {
        field.name: pa.array(computed[field.name], field.type)
        if field.name in computed
        else picked[field.name].cast(field.type)
        if field.name in picked.schema.names
        else pa.nulls(rows, field.type)
        for field in RERANKED
    }
    return pa.Table.from_pydict(columns, schema=RERANKED)


# --- the contenders: each returns its figures


def _asked(count: int, number: int, *, seed: int) -> Iterator[str]:
    words, draw = _words(), random.Random(seed)
    return (text_of(draw.randrange(count), words) for _ in range(number))


class Taken(NamedTuple):
    """Milliseconds of one look-up, and those of processor time in all threads."""

    wall: float
    processor: float


def _timed(look_up: Callable[[str], int], texts: Iterable[str]) -> list[Taken]:
    """What each look-up took, which returns the number of rows that it read."""
    taken = []
    for text in texts:
        wall, processor = time.perf_counter(), time.process_time()
        found = look_up(text)
        taken.append(Taken(1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - processor)))
        if found != ROWS:
            raise RuntimeError(f"{text!r} has {found} rows, not {ROWS}")
    return taken


def _places(taken: list[Taken], prefix: str = "") -> dict[str, float]:
    wall, processor = zip(*taken, strict=True)
    return {
        f"{prefix}ms_p50": float(np.percentile(wall, 50)),
        f"{prefix}ms_p99": float(np.percentile(wall, 99)),
        f"{prefix}processor_ms_p50": float(np.percentile(processor, 50)),
    }


def _read(work: Path, count: int) -> dict[str, float]:
    from nightrank import read

    cold, opened = list[Taken](), list[float]()
    texts = list(_asked(count, SERIES * EACH, seed=1))
    before = peak_rss_mb()
    for first in range(0, len(texts), EACH):
        start = time.perf_counter()
        reader = read.open(str(work / "output"))
        opened.append(1000 * (time.perf_counter() - start))
        cold += _timed(_rows_of(reader), texts[first : first + EACH])
    warm = _timed(_rows_of(reader), texts[:WARM] * 6)[WARM:]
    missing = [text + "?x" for text in texts[:500]]
    start = time.perf_counter()
    for text in missing:
        assert reader.lookup(text, default=None) is None
    miss = 1000 * (time.perf_counter() - start) / len(missing)
    rss = peak_rss_mb()
    start = time.perf_counter()
    reader.nearest(texts[0])
    first = time.perf_counter() - start
    near = _timed(lambda text: ROWS * len(reader.nearest(f"{text.rpartition(' ')[0]} x", 1)), texts[:100])
    return {
        **_places(cold, "cold_"),
        **_places(warm, "warm_"),
        "miss_ms": miss,
        "open_ms": statistics.median(opened),
        "rss_mb": rss,
        "rss_added_mb": rss - before,
        "nearest_first_s": first,
        **_places(near, "nearest_"),
        "nearest_rss_mb": peak_rss_mb(),
        "bytes_mb": sum(path.stat().st_size for path in (work / "output" / "runs").rglob("part-*")) / 1e6,
    }


def _rows_of(reader: Any) -> Callable[[str], int]:
    return lambda text: len(reader.lookup(text))


def _parquet(work: Path, count: int) -> dict[str, float]:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET parquet_metadata_cache = true")
    files = str(work / "output" / "runs" / "*" / "*" / "reranked" / "*.parquet")
    sql = f"SELECT {', '.join(COLUMNS)} FROM read_parquet('{files}') WHERE query_id = ? ORDER BY rank"
    look_up = _sql(connection.execute, sql)
    _timed(look_up, _asked(count, 1, seed=2))  # reads the footers
    return {**_places(_timed(look_up, _asked(count, 20, seed=3))), "rss_mb": peak_rss_mb()}


def _sql(execute: Callable[..., Any], sql: str) -> Callable[[str], int]:
    return lambda text: len(execute(sql, [query_id(text)]).fetchall())


def _duckdb(work: Path, count: int) -> dict[str, float]:
    import duckdb

    path = work / "table.duckdb"
    if not path.exists():
        files = str(work / "output" / "runs" / "*" / "*" / "reranked" / "*.parquet")
        with duckdb.connect(str(path)) as connection:
            connection.execute("SET memory_limit = '3GB'")
            rows = f"SELECT query_id, {', '.join(COLUMNS)} FROM read_parquet('{files}')"
            connection.execute(f"CREATE TABLE lists AS {rows}")
            connection.execute("CREATE INDEX by_query ON lists (query_id)")
    sql = f"SELECT {', '.join(COLUMNS)} FROM lists WHERE query_id = ? ORDER BY rank"
    taken = []
    for series in range(SERIES):
        with duckdb.connect(str(path), read_only=True) as connection:
            taken += _timed(_sql(connection.execute, sql), _asked(count, EACH, seed=series))
    return {**_places(taken), "rss_mb": peak_rss_mb(), "bytes_mb": path.stat().st_size / 1e6}


def _sqlite(work: Path, count: int) -> dict[str, float]:
    path = work / "table.sqlite"
    if not path.exists():
        _fill_sqlite(work, path)
    sql = f"SELECT {', '.join(COLUMNS)} FROM lists WHERE query_id = ? ORDER BY rank"
    taken = []
    for series in range(SERIES):
        connection = sqlite3.connect(path)
        taken += _timed(_sql(connection.execute, sql), _asked(count, EACH, seed=series))
        connection.close()
    return {**_places(taken), "rss_mb": peak_rss_mb(), "bytes_mb": path.stat().st_size / 1e6}


def _fill_sqlite(work: Path, path: Path) -> None:
    from nightrank import read

    columns = ["query_id", *COLUMNS]
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute(f"CREATE TABLE lists ({', '.join(columns)})")
    insert = f"INSERT INTO lists VALUES ({', '.join('?' * len(columns))})"
    with read.open(str(work / "output")) as reader:
        for table in reader.batches(columns):
            values = [table[name].to_pylist() for name in columns]
            for at, name in enumerate(columns):
                if name in ("entities", "hop_chain"):
                    values[at] = [json.dumps(value) for value in values[at]]
            connection.executemany(insert, zip(*values, strict=True))
    connection.execute("CREATE INDEX by_query ON lists (query_id)")
    connection.commit()
    connection.close()


CONTENDERS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "read": _read,
    "parquet": _parquet,
    "duckdb": _duckdb,
    "sqlite": _sqlite,
}


if __name__ == "__main__":
    main()
