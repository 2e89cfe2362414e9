"""The overhead of the Elasticsearch source compared with a minimal client without checks, against one real node.

    python -m benchmarks.elasticsearch [--quick] [--json FILE]

A node is started (Maven downloads it the first time) and loaded with random documents and log events. Then the log is
read, all slices in parallel, and candidates are fetched in shards of queries, as in a night: by our source, by the
shortest client code that makes the same requests from as many threads and decodes JSON the same way, and by the same
code with the client's default decoder. They take turns in alternating order, after a warm-up round; all must return the
same. A share is the median of its rounds' ratios. Last, our source reads the log and a quarter of it, each in a new
process whose peak memory is the figure. The node runs on the same cores, so only ratios are meaningful; with `--quick`
the node is hardly warmed up, so quote the shares of a full run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter, truediv
from pathlib import Path
from typing import Any, NamedTuple

import elasticsearch
from elasticsearch import Elasticsearch

from benchmarks.common import SAMPLE, median, parser, peak_rss_mb, report
from pipelines.elasticsearch.candidates import search_lines
from pipelines.elasticsearch.load import load
from pipelines.elasticsearch.log import check_counts, open_slices, read_slice
from pipelines.elasticsearch.pit import LogQuery, PitReader, Slice, SliceCount
from pipelines.elasticsearch.source import ElasticsearchSource
from pipelines.elasticsearch.write import open_cluster
from rerank_core.config.night import Output, parse_config
from rerank_core.config.source import Elasticsearch as ElasticsearchOptions
from schemas.records import Query, Rejected
from tests.support.servers.elasticsearch import VERSIONS, Node

Results = list[list[Any]]  # events by slice, or documents by query: complete, or only their ids
Contestant = Callable[[bool], Results]  # does the work once, and returns complete results (True) or their ids


class Sizes(NamedTuple):
    documents: int
    events: int  # of the large log; the small one has a quarter
    page_size: int
    queries: int  # of one round
    top_k: int
    rounds: int


FULL = Sizes(documents=50_000, events=200_000, page_size=5_000, queries=2_000, top_k=100, rounds=5)
QUICK = Sizes(documents=5_000, events=20_000, page_size=500, queries=400, top_k=50, rounds=3)


def word_source(draw: random.Random) -> Callable[[int], str]:
    """A function that draws words of the bundled passages by a Zipf distribution."""
    passages = (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    words = sorted({word for line in passages for word in json.loads(line)["text"].lower().split()})
    draw.shuffle(words)
    weights = list(itertools.accumulate(1 / (rank + 20) for rank in range(len(words))))
    return lambda count: " ".join(draw.choices(words, cum_weights=weights, k=count))


def documents(count: int) -> Iterator[dict[str, Any]]:
    words = word_source(draw := random.Random(1))
    for number in range(count):
        yield {"_id": f"d{number:06}", "title": words(3), "text": words(draw.randint(40, 60))}


def events(count: int) -> Iterator[dict[str, Any]]:
    """A day's events in the format of the bundled log: ten documents shown, none or one of them clicked."""
    words = word_source(draw := random.Random(2))
    for number in range(count):
        at = time.gmtime(1_772_409_600 + number * 86_400 // count)  # 2026-03-02
        shown = [f"d{draw.randrange(50_000):06}" for _ in range(10)]
        yield {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", at),
            "query": words(draw.randint(2, 8)),
            "user": f"{draw.getrandbits(64):016x}",
            "clicks": shown[: draw.randrange(2)],
            "impressions": shown,
        }


def make_queries(count: int) -> list[Query]:
    words = word_source(draw := random.Random(3))
    return [Query(f"{number:016x}", words(draw.randint(3, 6)), 1, 1, ()) for number in range(count)]


def fill_node(node: Node, sizes: Sizes) -> None:
    """Load everything with the mappings of `nightrank load-elasticsearch`, one shard per index."""
    cluster = open_cluster(node.url)
    logs = {"log-large": events(sizes.events), "log-small": events(sizes.events // 4)}
    with tempfile.TemporaryDirectory() as folder:
        for index, records in {"docs": documents(sizes.documents), **logs}.items():
            path = Path(folder, f"{index}.jsonl")
            with path.open("w", encoding="utf-8") as lines:
                lines.writelines(json.dumps(record) + "\n" for record in records)
            loaded = load(cluster, str(path), index=index)
            print(f"{index}: {loaded.documents:,} documents in {loaded.seconds:,.0f} s", flush=True)


def open_source(url: str, log_index: str) -> ElasticsearchSource:
    """Our source with the default settings, after the look-up of its indices at the start of a night."""
    settings = {"url": url, "index": "docs", "log_index": log_index}
    config = parse_config({"source": {"kind": "elasticsearch", "elasticsearch": settings}})
    source = ElasticsearchSource(config)
    source.describe()
    return source


def open_log(url: str, log_index: str) -> LogQuery:
    log = open_source(url, log_index)._events
    assert log is not None  # since `describe`
    return log


def bare_clients(url: str) -> dict[str, Elasticsearch]:
    """Clients with our JSON decoder (orjson if it is installed) and with the default one."""
    same = getattr(elasticsearch, "OrjsonSerializer", elasticsearch.JsonSerializer)
    return {
        name: Elasticsearch(url, request_timeout=30, serializers={"application/json": decoder()})
        for name, decoder in (("bare", same), ("bare with default JSON", elasticsearch.JsonSerializer))
    }


def our_export(log: LogQuery, complete: bool | None) -> Results:
    """The log as a night reads it, with its checks; one thread per slice. None: the events are discarded."""
    convert: Callable[[Any], Any] = tuple if complete else itemgetter(0)
    counts: list[SliceCount] = []

    def read(part: Slice) -> list[Any]:
        events = []
        for record in read_slice(part, log):
            if isinstance(record, SliceCount):
                counts.append(record)
            elif complete is not None:
                events.append(convert(record))
        return events

    parts = list(open_slices(None, log))
    with ThreadPoolExecutor(len(parts)) as threads:
        slices = list(threads.map(read, parts))
    check_counts(counts)
    PitReader(log).close_pit(parts[0].pit)
    return slices


def bare_export(client: Elasticsearch, log: LogQuery, complete: bool) -> Results:
    """The same pages and fields, without any check for missing events."""
    convert: Callable[[Any], Any] = tuple if complete else itemgetter(0)
    pit = client.open_point_in_time(index=log.target, keep_alive="5m")["id"]
    by_time = {"timestamp": {"order": "asc", "format": "strict_date_optional_time_nanos"}}

    def read(number: int) -> list[Any]:
        rows: list[Any] = []
        page: dict[str, Any] = {"sort": [by_time, {"_shard_doc": "asc"}], "size": log.page_size}
        page |= {"slice": {"field": log.slice_field, "id": number, "max": log.slices}, "query": log.query}
        page |= {"source": {"includes": list(log.source_fields)}, "track_total_hits": False}
        while True:
            hits = client.search(pit={"id": pit, "keep_alive": "5m"}, **page)["hits"]["hits"]
            for hit in hits:
                source = hit["_source"]
                row = (hit["_id"], source["timestamp"], source["query"], source["user"])
                rows.append(convert((*row, tuple(source["clicks"]), tuple(source["impressions"]))))
            if len(hits) < log.page_size:
                return rows
            page["search_after"] = hits[-1]["sort"]

    with ThreadPoolExecutor(log.slices) as threads:
        slices = list(threads.map(read, range(log.slices)))
    client.close_point_in_time(id=pit)
    return slices


def export_figures(url: str, sizes: Sizes) -> dict[str, float]:
    log = open_log(url, "log-large")._replace(page_size=sizes.page_size)
    contestants: dict[str, Contestant] = {"ours": partial(our_export, log)}
    contestants |= {name: partial(bare_export, client, log) for name, client in bare_clients(url).items()}
    rates = race(contestants, rounds=sizes.rounds, work=sizes.events, unit="events")
    return figures_of(rates, "export", "events_per_second")


def our_candidates(source: ElasticsearchSource, queries: list[Query], top_k: int, complete: bool) -> Results:
    """Shards of queries in sequence, as a worker of a night fetches them."""
    convert = itemgetter(0, 1, 2, 4) if complete else itemgetter(0)  # id, title, text and score
    results: Results = []
    size = Output().queries_per_shard
    for start in range(0, len(queries), size):
        shard = source.candidates(queries[start : start + size], top_k=top_k)
        results += [[] if isinstance(hits, Rejected) else list(map(convert, hits)) for hits in shard]
    return results


def bare_candidates(
    client: Elasticsearch, bodies: list[Any], options: ElasticsearchOptions, complete: bool
) -> Results:
    """The same requests, built beforehand, and a tuple per hit, without any check for failed items."""
    convert: Callable[[Any], Any] = tuple if complete else itemgetter(0)

    def row(hit: dict[str, Any]) -> Any:
        source = hit["_source"]
        return convert((hit["_id"], source["title"], source["text"], hit["_score"]))

    def search(start: int) -> Results:
        lines = [line for body in bodies[start : start + options.msearch_size] for line in body]
        answer = client.msearch(searches=lines)
        return [[row(hit) for hit in item["hits"]["hits"]] for item in answer["responses"]]

    with ThreadPoolExecutor(options.concurrency) as threads:
        batches = threads.map(search, range(0, len(bodies), options.msearch_size))
        return [rows for batch in batches for rows in batch]


def candidate_figures(url: str, sizes: Sizes) -> dict[str, float]:
    source, queries, top_k = open_source(url, "log-small"), make_queries(sizes.queries), sizes.top_k
    bodies = [search_lines(source._search, query, top_k=top_k) for query in queries]
    contestants: dict[str, Contestant] = {"ours": partial(our_candidates, source, queries, top_k)}
    for name, client in bare_clients(url).items():
        contestants[name] = partial(bare_candidates, client, bodies, source._options)
    rates = race(contestants, rounds=sizes.rounds, work=sizes.queries, unit="queries")
    return figures_of(rates, "candidates", "queries_per_second")


def race(contestants: dict[str, Contestant], *, rounds: int, work: int, unit: str) -> dict[str, list[float]]:
    """Rates of each contestant in each round; their results must be equal every time."""
    complete = comparable(contestants["ours"](True))
    expected = [[row[0] for row in part] for part in complete]
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):  # the first one warms up, and compares more than ids
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            results = contestants[name](turn == 0)
            rates[name].append(work / (time.perf_counter() - start))
            if comparable(results) != (expected if turn else complete):
                raise SystemExit(f"{name} returned other results than ours: their times are not comparable")
        complete = []
        shown = ", ".join(f"{name} {rate[-1]:,.0f}" for name, rate in rates.items())
        print(f"round {turn or 'for warm-up'}, {unit} per second: {shown}", flush=True)
    return {name: rate[1:] for name, rate in rates.items()}


def comparable(results: Results) -> Results:
    """Sorted, since equal scores have no order, and without the index name in the ids of our events."""
    return [sorted(map(_without_index, part)) for part in results]


def _without_index(row: Any) -> Any:
    return row.rpartition("/")[2] if isinstance(row, str) else (_without_index(row[0]), *row[1:])


def figures_of(rates: dict[str, list[float]], what: str, unit: str) -> dict[str, float]:
    ours, bare, default = rates.values()
    return {
        f"{what}_{unit}": median(ours),
        f"bare_{what}_{unit}": median(bare),
        f"{what}_share_of_bare_client": median(list(map(truediv, ours, bare))),
        f"{what}_share_of_default_json_client": median(list(map(truediv, ours, default))),
    }


def peak_of_reading(url: str, log_index: str) -> float:
    """Peak memory in MB of reading a log in this process and discarding it."""
    our_export(open_log(url, log_index), None)
    return peak_rss_mb()


def in_a_process(url: str, log_index: str) -> float:
    """The same in a new process, since a peak never decreases."""
    command = [sys.executable, "-m", "benchmarks.elasticsearch", "--read", url, log_index]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.read:
        print(peak_of_reading(*args.read))
        return
    sizes = QUICK if args.quick else FULL
    with Node(VERSIONS[elasticsearch.__version__[0]], quick_start=False) as node:
        fill_node(node, sizes)
        figures = export_figures(node.url, sizes)
        figures |= candidate_figures(node.url, sizes)
        small, large = (in_a_process(node.url, index) for index in ("log-small", "log-large"))
    figures |= {
        "export_rss_mb_small": small,
        "export_rss_mb_large": large,
        "export_rss_growth": large / small,
    }
    report(figures, args.json)


if __name__ == "__main__":
    main()
