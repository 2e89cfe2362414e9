"""What kept vectors save: a night of other questions over the same documents, with and without them.

    python -m benchmarks.kept_vectors [--set DIR] [--quick] [--json FILE]

The first night is asked half of a set's dev questions, the second one the other half (BM25's top 50, the model that
ships, without tags). The second night runs with the vectors of the first and, in another folder, without any; the two
take turns.

- night_speedup: seconds of the whole second night, without by with. scoring_speedup: the same of ScoreCandidates.
- evidence_speedup: the same of FindEvidence.
- megabytes: of the vectors that the first night kept. largest_difference: of a logit, between the two.
"""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.common import SAMPLE, median, parser, report
from benchmarks.searched_set import read_questions
from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from pipelines.storage.runs import table_files
from pipelines.storage.vectors import FOLDER
from rerank_core.config.night import Config, parse_config
from schemas.manifest import Manifest

DAY = datetime.date(2026, 3, 8)
ROUNDS = 2


def write_log(file: Path, questions: list[str], day: datetime.date) -> None:
    events = [
        {"timestamp": f"{day}T12:00:00Z", "query": text, "user": "u", "clicks": []} for text in questions
    ]
    file.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def config(folder: Path, output: Path, *, vectors_mb: int) -> Config:
    return parse_config(
        {
            "source": {"log": str(folder / "log.jsonl"), "index": str(folder / "index")},
            "log": {"window_days": 1},
            "candidates": {"top_k": 50},
            "tags": {"enabled": False},
            "drift": {"enabled": False},
            "reuse": {"vectors_mb": vectors_mb},
            "output": {"path": str(output)},
        }
    )


def night(configured: Config, day: datetime.date) -> tuple[Manifest, float]:
    start = time.perf_counter()
    manifest = run(configured, run_date=day)
    return manifest, time.perf_counter() - start


def logits(output: Path, manifest: Manifest) -> dict[tuple[str, str], float]:
    columns = ["query_id", "passage_id", "logit"]
    tables = [pq.read_table(file, columns=columns) for file in table_files(str(output), manifest, "reranked")]
    return {
        (row["query_id"], row["passage_id"]): row["logit"] for table in tables for row in table.to_pylist()
    }


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--set", type=Path, default=SAMPLE, metavar="DIR", help="a folder in BEIR's layout")
    args = flags.parse_args()
    questions = list(read_questions(args.set, "dev").texts.values())[: 40 if args.quick else 400]
    half, second = len(questions) // 2, DAY + datetime.timedelta(days=1)
    spent: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_index(args.set, folder / "index")
        write_log(folder / "log.jsonl", questions[:half], DAY)
        first = folder / "first"
        night(config(folder, first, vectors_mb=10_000), DAY)
        megabytes = sum(file.stat().st_size for file in (first / FOLDER).rglob("*.arrow")) / 1e6
        write_log(folder / "log.jsonl", questions[half:], second)
        found = {}
        for _ in range(1 if args.quick else ROUNDS):
            for kept in (0, 10_000):
                output = folder / "second"
                shutil.rmtree(output, ignore_errors=True)
                shutil.copytree(first, output)
                manifest, seconds = night(config(folder, output, vectors_mb=kept), second)
                found[kept] = logits(output, manifest)
                stages = {
                    name: manifest.stages[name]["seconds"] for name in ("ScoreCandidates", "FindEvidence")
                }
                for what, amount in ({"night": seconds} | stages).items():
                    spent.setdefault(f"{what} {kept}", []).append(amount)
    ratio = {
        what: median(spent[f"{what} 0"]) / median(spent[f"{what} 10000"])
        for what in ("night", "ScoreCandidates", "FindEvidence")
    }
    report(
        {
            "questions": len(questions) - half,
            "night_speedup": ratio["night"],
            "scoring_speedup": ratio["ScoreCandidates"],
            "evidence_speedup": ratio["FindEvidence"],
            "seconds_with": median(spent["night 10000"]),
            "seconds_without": median(spent["night 0"]),
            "megabytes": megabytes,
            "largest_difference": max(abs(found[0][pair] - logit) for pair, logit in found[10_000].items()),
        },
        args.json,
    )


if __name__ == "__main__":
    main()
