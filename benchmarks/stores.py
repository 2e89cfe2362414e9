"""A night and a second one with reuse: in a local folder, in S3 and in Google Cloud Storage, on servers started here.

    python -m benchmarks.stores [--quick] [--json FILE]

`s3_equal` and `gcs_equal` are 1 if every file in the store is that of the local folder, byte by byte. Requests and
bytes are counted by the servers: of each night, and of reading two columns of every file of `reranked`.
A full run has 400 queries in 200 shards, `--quick` the five of the tests.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.common import parser, report
from pipelines.storage.filesystem import read_table
from pipelines.storage.runs import open_run, table_files
from tests.support.servers.gcs import GcsServer
from tests.support.servers.s3 import S3Server
from tests.support.store_nights import NEXT, night, published
from tests.support.tiny import CORPUS, DAY, event, make_tiny, write_lines

QUERIES = 400


def main() -> None:
    chosen = parser(__doc__ or "").parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = make_tiny(Path(made)).folder
        sections = {}
        if not chosen.quick:
            texts = [f"{title['title']} {number}" for number in range(40) for title in CORPUS]
            write_lines(folder / "good.jsonl", [event(text) for text in texts[:QUERIES]])
            sections = {"candidates": {"top_k": 5}}
        local = f"{made}/output"
        nights = [_timed(lambda day=day: night(folder, local, day, **sections)) for day in (DAY, NEXT)]
        figures |= {"local_seconds": nights[0], "local_second_seconds": nights[1]}
        expected = published(local)
        for name, kind in (("s3", S3Server), ("gcs", GcsServer)):
            with kind() as server:
                os.environ |= server.environment
                output = f"{server.scheme}://nights/output"
                for number, day in (("", DAY), ("_second", NEXT)):
                    server.forget()
                    figures[f"{name}{number}_seconds"] = _timed(
                        lambda day=day, output=output: night(folder, output, day, **sections)
                    )
                    figures[f"{name}{number}_requests"] = len(server.requests)
                    figures[f"{name}{number}_mb_read"] = round(server.sent / 1e6, 3)
                figures[f"{name}_equal"] = int(published(output) == expected)
                files = table_files(output, open_run(output), "reranked")
                server.forget()
                for path in files:
                    read_table(path, ["query_id", "rank"])
                figures[f"{name}_requests_per_file"] = round(len(server.requests) / len(files), 2)
    report(figures, chosen.json)
    if wrong := [name for name in ("s3_equal", "gcs_equal") if not figures[name]]:
        raise SystemExit(f"not the files of the local folder: {', '.join(wrong)}")


def _timed(do: Callable[[], object]) -> float:
    started = time.monotonic()
    do()
    return round(time.monotonic() - started, 2)


if __name__ == "__main__":
    main()
