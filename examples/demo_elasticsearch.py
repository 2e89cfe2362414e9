"""`make demo-elasticsearch`: a night from a real Elasticsearch and back into it.

Starts a server on loopback (the one of the tests), loads a corpus and a query log, runs the night of
examples/elasticsearch.toml, publishes it back, asks the alias, and stops the server. Runs on the bundled sample, or
with --data on a judged set in BEIR's layout, whose dev questions become the log.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rerank_core.text import query_id
from tests.support.servers.elasticsearch import Node
from tests.support.servers.elasticsearch_build import Unavailable

ROOT = Path(__file__).resolve().parent.parent
RUN_DATE, ALIAS = "2026-03-08", "reranked"
SAMPLE = ROOT / "sample_data"
WORK = ROOT / "demo_output" / "elasticsearch"


class Data(NamedTuple):
    """What the demo runs on."""

    corpus: Path
    log: Path
    query: str  # one of the log's, to ask the alias for
    extra: str  # TOML


def main() -> None:
    """Parse the command line, start a server, run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder in BEIR's layout, with qrels/dev.tsv; default: the bundled sample"
    )
    parser.add_argument("--model", default="", help="folder of a cross-encoder; default: the bundled one")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    data = judged_set(arguments.data.resolve()) if arguments.data else sample()
    print(
        "Starting Elasticsearch on this machine; the first time it is fetched, which takes a minute ...",
        flush=True,
    )
    try:
        with Node() as node:
            demo(node, data, model=arguments.model)
    except Unavailable as error:
        sys.exit(f"error: {error}")


def sample() -> Data:
    """The bundled passages and the simulated log."""
    query = "why do two brazilian rivers run next to each other without blending"
    extra = _evaluation(SAMPLE) + "\n[labels]\nmin_clicks = 3\n"
    return Data(SAMPLE, SAMPLE / "query_log.jsonl", query, extra)


def judged_set(folder: Path) -> Data:
    """A judged set's passages; its dev questions, asked once each on the demo's date."""
    lines = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [row["text"] for row in map(json.loads, lines) if row.get("split", "dev") == "dev"]
    log = WORK / "log.jsonl"
    events = [{"timestamp": f"{RUN_DATE}T09:00:00Z", "query": text} for text in questions]
    log.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    judged = {
        "source": "qrels",
        "queries": str(folder / "queries.jsonl"),
        "qrels": str(folder / "qrels" / "dev.tsv"),
    }
    labels = "\n".join(f"{key} = {json.dumps(value)}" for key, value in judged.items())
    return Data(folder, log, questions[0], _evaluation(folder) + f"\n[labels]\n{labels}\n")


def _evaluation(folder: Path) -> str:
    queries, qrels = json.dumps(str(folder / "queries.jsonl")), json.dumps(str(folder / "qrels" / "dev.tsv"))
    return f"\n[evaluation]\nqueries = {queries}\nqrels = {qrels}\n"


def demo(node: Node, data: Data, *, model: str) -> None:
    """Load, rerank, publish, ask."""
    config = WORK / "night.toml"
    text = (ROOT / "examples" / "elasticsearch.toml").read_text(encoding="utf-8")
    text = text.replace("http://localhost:9200", node.url).replace(
        "../demo_output/elasticsearch", str(WORK / "run")
    )
    scoring = f"\n[scoring]\nmodel = {json.dumps(str(Path(model).resolve()))}\n" if model else ""
    config.write_text(text + data.extra + scoring, encoding="utf-8")
    nightrank("load", str(data.corpus), "--to", node.url, "--index", "passages")
    nightrank("load", str(data.log), "--to", node.url, "--index", "search-log")
    nightrank("nightly", "--config", str(config), "--run-date", RUN_DATE)
    nightrank("publish", str(WORK / "run"), "--to", node.url, "--alias", ALIAS)
    path = f"/{ALIAS}/_doc/{query_id(data.query)}"
    print(f"\n$ curl {node.url}{path}        # {data.query}", flush=True)
    found = node.request("GET", path)
    found["_source"]["results"] = found["_source"]["results"][:3]
    print(json.dumps(found, indent=2, ensure_ascii=False)[:2000])


def nightrank(*arguments: str) -> None:
    """Run the command as a user would, and stop where it fails."""
    print(f"\n$ nightrank {shlex.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *arguments], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
