"""What a pair costs as nights grow: time, memory, bytes read and written, and requests to the store.

    python -m benchmarks.scale [--quick] [--json FILE]

A first night of 10^4, 10^5 and 10^6 pairs (`--quick`: 10^4 and 3x10^4), and a second night over the same log, in which
one document in ten is new. The corpus grows with the night, ten pairs a document. The scorer takes no time, so that
everything but the model is measured; in a full run the shipped model is measured beside it at 10^4 pairs.

Each night runs on the local runner, in a new process with one worker. Bytes are those that the process read and wrote
by system calls (Linux); the index is mapped into memory, and not among them. Requests are counted in an object store in
memory, in nights of up to 10^5 pairs.

A line (fixed + each x pairs) is fitted to the processor's seconds, to bytes and memory, and to requests by shards, each
night counting by its own size; what look-ups of facts read is added, by `pipelines.nightly.cost.look_ups`.
`model_error` is the largest relative error of these lines on a night of 3x10^5 pairs (`--quick`: 2x10^4) that they were
not fitted on. `pipelines/nightly/cost.py` plans by them.

`reads_per_fact` is the bytes that a look-up of 500 facts in a table of 10^6 reads for each (`--quick`: 10^5), and
`reads_growth` how many times that is what a table of a tenth of the size takes.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import datetime
import itertools
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.optimize import nnls

from benchmarks.common import SAMPLE, parser, peak_rss_mb, report
from benchmarks.memory import ConstantTime
from pipelines.nightly.cost import look_ups
from pipelines.nightly.facts import StoredFacts, read_facts
from pipelines.nightly.prepare import Run
from pipelines.nightly.run import run
from pipelines.nightly.write_facts import file_count, write_facts
from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import Config, Tagging, parse_config
from rerank_core.features.tagger import default_recogniser
from rerank_core.features.tagger import read as read_passages
from rerank_core.rows import passage_tags
from schemas.layout import first_id
from schemas.tables import PASSAGE_TAGS

CANDIDATES, PAIRS_PER_DOCUMENT = 50, 10
WORDS_PER_QUERY = 30
DAY = datetime.date(2026, 3, 8)
REQUESTS = ("create", "open", "_list", "copy", "delete", "exists", "metadata", "size")
"""What Beam's file systems ask a store for, one request each; a rename is a copy and a deletion."""


Nights = dict[str, dict[str, float]]
"""The figures of a night, by kind of night."""


def make_inputs(folder: Path, pairs: int) -> None:
    """A log of distinct queries and the indices of two days, made of the bundled passages' sentences."""
    draw = random.Random(7)
    texts = [json.loads(line)["text"] for line in (SAMPLE / "corpus.jsonl").open(encoding="utf-8")]
    sentences = sorted({s for text in texts for s in text.split(". ") if s})
    words = sorted({word for text in texts for word in text.lower().split() if word.isalpha()})
    documents = [
        {"_id": str(n), "title": f"Document {n}", "text": ". ".join(draw.sample(sentences, 4))}
        for n in range(max(CANDIDATES, pairs // PAIRS_PER_DOCUMENT))
    ]
    for day in ("first", "second"):
        corpus = folder / f"{day}.jsonl"
        corpus.write_text("".join(json.dumps(d) + "\n" for d in documents), encoding="utf-8")
        build_index(corpus, folder / day)
        for document in documents[::10]:
            document["text"] += " It was changed."
    with (folder / "log.jsonl").open("w", encoding="utf-8") as log:
        for n in range(pairs // CANDIDATES):
            query = f"{' '.join(draw.sample(words, WORDS_PER_QUERY))} {n}"
            log.write(json.dumps({"timestamp": "2026-03-08T12:00:00Z", "query": query}) + "\n")


def config_of(folder: Path, output: str, *, day: str) -> Config:
    """A night over the inputs of a day."""
    return parse_config(
        {
            "source": {"log": str(folder / "log.jsonl"), "index": str(folder / day)},
            "output": {"path": output},
            "candidates": {"top_k": CANDIDATES},
            "tags": {"recogniser": "rules"},
            "drift": {"enabled": False},
        }
    )


def one_night(folder: Path, *, day: str, scorer: str, store: bool) -> dict[str, float]:
    """Run a night in this process.

    Args:
        scorer: "constant", or "shipped".
        store: write into an object store in memory, a first night and then this one, and count the requests.
    """
    load = ConstantTime if scorer == "constant" else None
    with counted_requests() if store else contextlib.nullcontext(Counter[str]()) as requests:
        output = "mem://bucket/output" if store else str(folder / f"output-{scorer}")
        if store and day == "second":
            run(config_of(folder, output, day="first"), run_date=DAY, load=load)
            requests.clear()
        before, started = _usage(), time.perf_counter()
        manifest = run(config_of(folder, output, day=day), run_date=DAY, load=load)
        seconds = time.perf_counter() - started
    after = _usage()
    return {
        "pairs": float(manifest.balance.pairs["read"]),
        "reused": float(manifest.balance.pairs["reused"]),
        "seconds": seconds,
        "rss_mb": peak_rss_mb(),
        **{name: after[name] - before[name] for name in before},
        **{f"requests_{name.strip('_')}": float(count) for name, count in requests.items()},
        "requests": float(requests.total()),
        **{f"seconds_{stage}": t["seconds"] for stage, t in manifest.stages.items() if "seconds" in t},
    }


def _usage() -> dict[str, float]:
    """Processor seconds, and bytes that this process has read and written."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    lines = (line.split() for line in Path("/proc/self/io").read_text().splitlines())
    bytes_of = {name: float(count) for name, count in lines}
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "read_bytes": bytes_of["rchar:"],
        "written_bytes": bytes_of["wchar:"],
    }


@contextlib.contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """An object store in memory, mem://, and the number of requests of each kind to it."""
    from tests.support.object_store import MemoryFileSystem

    requests, plain = Counter[str](), {name: getattr(MemoryFileSystem, name) for name in REQUESTS}

    def counting(name: str) -> Any:
        def request(*args: Any, **kwargs: Any) -> Any:
            requests[name] += 1
            return plain[name](*args, **kwargs)

        return request

    for name in REQUESTS:
        setattr(MemoryFileSystem, name, counting(name))
    try:
        yield requests
    finally:
        for name, method in plain.items():
            setattr(MemoryFileSystem, name, method)


def in_a_process(folder: Path, *flags: str) -> dict[str, float]:
    """A night in a new process, since its memory is not given back."""
    command = [sys.executable, "-m", "benchmarks.scale", "--night", str(folder), *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    night: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return night


def measure_size(pairs: int, *, store: bool, shipped: bool) -> Nights:
    """Nights of one size: "first" and "second", with `shipped` "model", with `store` "first_store", "second_store"."""
    nights = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, pairs)
        for day in ("first", "second"):
            nights[day] = in_a_process(folder, "--day", day)
        if shipped:
            nights["model"] = in_a_process(folder, "--scorer", "shipped")
        if store:
            for day in ("first", "second"):
                nights[f"{day}_store"] = in_a_process(folder, "--day", day, "--store")
    for kind, night in nights.items():
        per_pair = {key: night[key] / night["pairs"] for key in ("read_bytes", "written_bytes", "requests")}
        print(
            f"{pairs:>9,} {kind:<13}{night['seconds']:7.1f} s {night['cpu_seconds']:7.1f} s of processor "
            f"{night['rss_mb']:7,.0f} MB  a pair: {per_pair['read_bytes']:7,.0f} B read, "
            f"{per_pair['written_bytes']:5,.0f} B written, {per_pair['requests']:.4f} requests",
            flush=True,
        )
    return nights


def figures_of(pairs: int, nights: Nights) -> dict[str, float]:
    """The figures of nights of one size, named by it."""
    size = f"1e{len(str(pairs)) - 1}" if str(pairs).strip("0") == "1" else f"{pairs}"
    figures = {f"rss_mb_{size}": max(night["rss_mb"] for night in nights.values())}
    for kind, night in nights.items():
        for key in ("seconds", "cpu_seconds", "read_bytes", "written_bytes", "requests"):
            if night[key]:
                figures[f"{kind}_{key}_{size}"] = night[key]
    return figures


FITTED = (
    ("first", "cpu_seconds"),
    ("first", "read_bytes"),
    ("first", "written_bytes"),
    ("first", "rss_mb"),
    ("second", "cpu_seconds"),
    ("second", "read_bytes"),
    ("first_store", "requests"),
    ("second_store", "requests"),
)
"""What lines are fitted to, by kind of night."""


def fit(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(fixed, each) of the line with the least squares of relative errors, neither below 0."""
    amounts, values = np.array(points).T
    lines, _ = nnls(np.column_stack([1 / values, amounts / values]), np.ones(len(values)))
    return float(lines[0]), float(lines[1])


def model(nights: dict[int, Nights], held_out: int) -> dict[str, float]:
    """The lines through all nights but those of one size, and their errors on these."""
    figures, errors = {}, []
    for kind, key in FITTED:
        of_kind = {size: found[kind] for size, found in nights.items() if kind in found}
        points = [
            (night["pairs"], night[key] - looked_up(night, kind, key))
            for size, night in of_kind.items()
            if size != held_out
        ]
        if held_out not in of_kind or len(points) < 2:
            continue
        fixed, each = fit(points)
        night = of_kind[held_out]
        error = (fixed + each * night["pairs"] + looked_up(night, kind, key)) / night[key] - 1
        errors.append(abs(error))
        figures |= {f"{kind}_{key}_fixed": fixed, f"{kind}_{key}_each": each, f"{kind}_{key}_error": error}
    return figures | {"model_error": max(errors)}


def looked_up(night: dict[str, float], kind: str, key: str) -> float:
    """Bytes of a figure that are those of look-ups of facts, which grow otherwise than by pairs."""
    if (kind, key) != ("second", "read_bytes"):
        return 0.0
    queries, shard = night["pairs"] / CANDIDATES, config_of(Path(), "", day="second").output.queries_per_shard
    return look_ups(night["pairs"], night["pairs"] / PAIRS_PER_DOCUMENT, math.ceil(queries / shard))[0]


def reads_per_fact(size: int) -> float:
    """Bytes that a look-up of some facts reads for each, in a table of `size` facts."""
    draw = np.random.default_rng(5)
    texts = [json.loads(line)["text"] for line in (SAMPLE / "corpus.jsonl").open(encoding="utf-8")]
    recogniser = default_recogniser(Tagging(recogniser="rules"), threads=1)
    facts = read_passages([("", text) for text in texts], recogniser)
    plain = passage_tags({f"{n:032x}": known for n, known in enumerate(facts)})
    keys = sorted(f"{int(key):016x}{0:016x}" for key in draw.integers(0, 2**64, size, dtype=np.uint64))
    table = plain.take(pa.array(draw.integers(0, len(plain), size)))
    table = table.set_column(0, PASSAGE_TAGS.field(0), pa.array(keys))
    with tempfile.TemporaryDirectory() as folder:
        run, total = Run("scale", DAY.isoformat(), None, folder, None), file_count(1, size)
        bounds = [bisect.bisect_left(keys, first_id(number, total)) for number in range(total + 1)]
        for number, (start, end) in enumerate(itertools.pairwise(bounds)):
            write_facts(run, number, total, table.slice(start, end - start))
        stored = StoredFacts(tuple(str(path) for path in sorted(Path(folder).rglob("part-*"))))
        wanted = set(draw.choice(keys, 500, replace=False).tolist())
        before = _usage()["read_bytes"]
        found = read_facts(stored, wanted)
        read = _usage()["read_bytes"] - before
    if found.keys() != wanted:
        raise SystemExit("not all facts were found")
    return read / len(found)


def measure_facts(size: int) -> dict[str, float]:
    """What a look-up reads in a table of that size, and of a tenth of it."""
    small, large = reads_per_fact(size // 10), reads_per_fact(size)
    print(
        f"a fact looked up among {size // 10:,}: {small:,.0f} B read, among {size:,}: {large:,.0f} B",
        flush=True,
    )
    return {"reads_per_fact": large, "reads_growth": large / small}


def measure(sizes: list[int], *, held_out: int, shipped: bool) -> dict[str, float]:
    """The figures of nights of some sizes, and of the lines through them.

    Args:
        held_out: the size on which the lines are checked.
        shipped: measure the shipped model, too, at 10^4 pairs.
    """
    nights = {
        pairs: measure_size(pairs, store=pairs <= 100_000, shipped=shipped and pairs == 10_000)
        for pairs in sorted({*sizes, held_out})
    }
    figures = {
        name: value for pairs, found in nights.items() for name, value in figures_of(pairs, found).items()
    }
    return figures | model(nights, held_out)


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--night", type=Path, help=argparse.SUPPRESS)
    flags.add_argument("--day", choices=("first", "second"), default="first", help=argparse.SUPPRESS)
    flags.add_argument(
        "--scorer", choices=("constant", "shipped"), default="constant", help=argparse.SUPPRESS
    )
    flags.add_argument("--store", action="store_true", help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.night:
        night = one_night(args.night, day=args.day, scorer=args.scorer, store=args.store)
        print(json.dumps(night))
        return
    sizes = [10_000, 30_000] if args.quick else [10_000, 100_000, 1_000_000]
    held_out = 20_000 if args.quick else 300_000
    figures = measure_facts(100_000 if args.quick else 1_000_000)
    report(figures | measure(sizes, held_out=held_out, shipped=not args.quick), args.json)


if __name__ == "__main__":
    main()
