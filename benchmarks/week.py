"""Seven nights of one output folder, with a log and a corpus that change, a bad model and a broken index.

    python -m benchmarks.week [--output DIR] [--quick] [--json FILE]

Each night is `nightrank nightly` with all its steps over one day of the bundled log; a little of the corpus changes
each day. A copy of the shipped model serves from the third night on ("good_promoted"). On the fourth a model whose
scores are turned around is put into the registry: it must be turned down ("held_bad_model"). On the fifth the index
has lost nine tenths of its passages: the night must be held back ("held_broken_night"), and the next one must be
published again. Every night has its report; `--output` keeps the folder, to look at them. `--quick` runs nights 1,
3, 4 and 5 with few queries.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import SAMPLE, nightly, parser, report
from benchmarks.promotion import copy_model
from pipelines.registry.store import Registry
from pipelines.sources.local.bm25_index import build_index
from pipelines.storage.held import held_path
from pipelines.storage.plan_records import read_plan
from pipelines.storage.runs import run_path
from rerank_core.promotion.rules import least_margin
from schemas.outcome import PlanRecord

FIRST = datetime.date(2026, 3, 2)
GOOD, BAD, BROKEN = 3, 4, 5  # nights with an event, from 1
HELD = 6  # exit code

TOML = """
[source]
log = "log.jsonl"
index = "index"

[log]
window_days = 1

[candidates]
top_k = {top_k}

[scoring]
model = "registry:serving"

[output]
path = "output"
queries_per_shard = 50

[evaluation]
queries = "{sample}/queries.jsonl"
qrels = "{sample}/qrels/dev.tsv"

[registry]
path = "registry"

[promotion]
judged_sets = ["{sample}"]
max_queries = {judged}
margin = {margin}

[retention]
keep_runs = 5
grace_hours = 0.0

[alerts]
prometheus = "nightrank.prom"
summary = "summary.json"
"""


class Night(NamedTuple):
    """One night as it ended."""

    number: int
    run_date: str
    exit_code: int
    record: PlanRecord
    report: Path | None

    @property
    def rerank(self) -> str:
        """The state of the step `rerank`."""
        step = self.record.step("rerank")
        return step.state if step else "missing"

    @property
    def decision(self) -> dict[str, Any]:
        """The result of the step `promote`; empty where nothing was decided."""
        step = self.record.step("promote")
        return step.result if step and step.state == "done" else {}


def prepare(folder: Path, *, quick: bool) -> None:
    """Configuration and log of all nights."""
    judged = 12 if quick else 60
    settings = {"top_k": 10 if quick else 20, "judged": judged, "margin": 1.05 * least_margin(judged)}
    (folder / "night.toml").write_text(TOML.format(sample=SAMPLE.as_posix(), **settings), encoding="utf-8")
    events = (SAMPLE / "query_log.jsonl").read_text(encoding="utf-8").splitlines()
    kept = events[:: 8 if quick else 1]
    (folder / "log.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")


def build_corpus(folder: Path, number: int) -> None:
    """Index the corpus of one night: each loses some passages, and some are written anew."""
    lines = (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    draw = random.Random(number)
    corpus = folder / "corpus.jsonl"
    with corpus.open("w", encoding="utf-8") as file:
        for line in lines:
            if draw.random() < (0.9 if number == BROKEN else 0.01):
                continue
            document = json.loads(line)
            if draw.random() < 0.05:
                document["text"] += f" This passage was last revised on day {number}."
            file.write(json.dumps(document, ensure_ascii=False) + "\n")
    build_index(corpus, folder / "index")


def put_model(folder: Path, number: int) -> None:
    """Put the model of one night, if there is one, into the registry, as a training elsewhere would."""
    names = {GOOD: "good", BAD: "reversed"}
    if name := names.get(number):
        Registry(str(folder / "registry")).add(copy_model(folder / f"model_{name}", name))


def run_night(folder: Path, number: int) -> Night:
    """Run one night by the command line."""
    build_corpus(folder, number)
    put_model(folder, number)
    day = (FIRST + datetime.timedelta(days=number - 1)).isoformat()
    done = nightly(folder / "night.toml", day)
    output = folder / "output"
    record = read_plan(str(output), day)
    night = Night(number, day, done.returncode, record, _report_of(output, day, record))
    print(f"night {number}, {day}: exit code {night.exit_code}, rerank {night.rerank}", flush=True)
    for line in _reasons(night, done.stderr):
        print(f"    {line}", flush=True)
    return night


def _report_of(output: Path, day: str, record: PlanRecord) -> Path | None:
    folders = [output / place(day, "*") for place in (run_path, held_path)]
    found = [path for folder in folders for path in folder.parent.glob(f"{folder.name}/report.html")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _reasons(night: Night, errors: str) -> Iterator[str]:
    yield from filter(None, errors.splitlines())
    if night.decision:
        yield f"promote: {night.decision['model']}: {night.decision['reason']}"
    if night.report:
        yield str(night.report)


def measure(quick: bool, *, folder: Path) -> dict[str, float]:
    """Run the week, and say what became of each of its events."""
    prepare(folder, quick=quick)
    numbers = (1, GOOD, BAD, BROKEN) if quick else range(1, 8)
    nights = {number: run_night(folder, number) for number in numbers}
    bad, good, broken = nights[BAD], nights[GOOD], nights[BROKEN]
    others = [night for number, night in nights.items() if number != BROKEN]
    serving = Registry(str(folder / "registry")).serving()
    return {
        "nights": float(len(nights)),
        "nights_published": float(sum(night.rerank == "done" and night.exit_code == 0 for night in others)),
        "held_broken_night": float(broken.exit_code == HELD and broken.rerank == "held"),
        "held_bad_model": float(bad.decision.get("promoted") is False),
        "good_promoted": float(good.decision.get("promoted") is True),
        "good_still_serves": float(serving is not None and serving.id == good.decision.get("model")),
        "reports": float(sum(night.report is not None for night in nights.values())),
    }


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--output", type=Path, metavar="DIR", help="an empty folder, which is kept")
    args: argparse.Namespace = flags.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = measure(args.quick, folder=folder)
    report(figures, args.json)
    wanted = figures | {"nights_published": figures["nights"] - 1, "reports": figures["nights"]}
    if figures != wanted or not all(figures.values()):
        raise SystemExit("a night did not end as it should")


if __name__ == "__main__":
    main()
