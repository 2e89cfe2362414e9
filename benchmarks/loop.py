"""The loop: nights that publish, train on the clicks on their lists, and let the better model serve the next one.

    python -m benchmarks.loop [--set DIR] [--others DIR ...] [--plot FILE] [--output DIR] [--quick] [--json FILE]

Seven nights, run by the command line. Their log is drawn by the model of the bundled one (sample_data/generate_log.py):
its users click by the judgements of a set, which are also the truth that the models are measured by. No training reads
them. The questions are divided by hash:

- asked: they are in the log. Training learns from the clicks on them, corrected for position bias.
- gate: not in the log; promotion compares a candidate with the serving model on them.
- unseen: neither in the log nor compared by promotion.

Without --set that is the bundled sample: half of its questions are asked, a quarter is the gate's. Otherwise questions
of the set's train split are asked, and those of its dev split are divided. Each night reads the log of all days so far,
trains from the bundled model on what it published, and decides about the candidate.

- asked_N, unseen_N: nDCG@10, in percent, of the model that serves after night N; asked_0 is the bundled one.
- loop_gain, loop_gain_p: points of nDCG@10 on the unseen questions from the bundled model to the last one, and the
  p-value of a paired randomisation test; loop_gain_asked, loop_gain_asked_p: on the asked ones.
- lost_SET: points of nDCG@10 lost on each set of --others (dev split), which the loop knows nothing of.
- promoted: candidates that were promoted. positives, negatives: of the last night; positives_relevant,
  negatives_relevant: the share of them that is relevant.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.clicks import labelled
from benchmarks.common import SAMPLE, nightly, parser, report
from benchmarks.searched_set import FIRST, Questions, read_questions, share_relevant, write_log, write_set
from pipelines.evaluate.run import evaluate
from pipelines.registry.model_files import MODELS
from pipelines.registry.store import Registry
from pipelines.sources.local.bm25_index import build_index
from pipelines.storage.runs import open_run, table_files
from rerank_core.evaluation.comparison import Result
from rerank_core.promotion.rules import least_margin

SHIPPED = "default"

NIGHT = """
[source]
log = "log.jsonl"
index = "index"

[candidates]
top_k = {top_k}

[labels]
debias = true
{labels}

[evidence]
top_n = 0

[scoring]
model = "registry:serving"

[output]
path = "output"

[plan]
train = "train.toml"
train_days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

[registry]
path = "registry"

[promotion]
judged_sets = ["gate"]
max_queries = 0
margin = {margin}
"""

TRAINING = """
model = "default"
output = "model"
precision = "bf16"

[[stages]]
name = "clicks"
runs = ["output"]
loss = "listwise"
lr = {lr}
epochs = {epochs}
"""


class Size(NamedTuple):
    """How large the loop is."""

    nights: int
    asked: int  # questions, at most
    events: int  # of the log
    gate: int  # questions, at most
    top_k: int
    epochs: int
    lr: float
    labels: str = ""  # more lines of [labels]


PASSED_OVER = "shown_negatives_only = true\nmax_negative_attraction = 0.05"
SAMPLE_SIZE = Size(nights=7, asked=56, events=3000, gate=28, top_k=50, epochs=4, lr=1e-4)
SET_SIZE = Size(nights=7, asked=300, events=8000, gate=160, top_k=50, epochs=1, lr=5e-5, labels=PASSED_OVER)


def divide(source: Path, size: Size) -> dict[str, Questions]:
    """The questions by their part; no text is in two of them."""
    if (source / "qrels" / "train.tsv").exists():
        asked, others = read_questions(source, "train"), read_questions(source, "dev")
        log = list(asked.texts)[: size.asked]
    else:
        asked = others = read_questions(source, "dev")
        log = list(asked.texts)[: min(size.asked, len(asked.texts) // 2)]
    known = {asked.texts[name].casefold() for name in log}
    rest = [name for name, text in others.texts.items() if text.casefold() not in known]
    gate = min(size.gate, len(rest) // 2)
    return {"asked": asked.part(log), "gate": others.part(rest[:gate]), "unseen": others.part(rest[gate:])}


def prepare(folder: Path, source: Path, size: Size) -> None:
    """The sets, the index, the log of all nights, and the configurations."""
    parts = divide(source, size)
    for name, questions in parts.items():
        write_set(folder / name, source / "corpus.jsonl", questions)
        print(f"{name}: {len(questions.texts)} questions", flush=True)
    build_index(folder / "asked", folder / "index")
    write_log(folder / "asked", folder / "log.jsonl", events=size.events, days=size.nights)
    margin = max(0.01, 1.05 * least_margin(len(parts["gate"].texts)))
    (folder / "night.toml").write_text(
        NIGHT.format(top_k=size.top_k, labels=size.labels, margin=margin), encoding="utf-8"
    )
    (folder / "train.toml").write_text(TRAINING.format(epochs=size.epochs, lr=size.lr), encoding="utf-8")


def run_night(folder: Path, number: int) -> str:
    """Run a night by the command line, and return the id of the model that serves after it, or SHIPPED.

    Raises:
        SystemExit: it failed.
    """
    day = (FIRST + datetime.timedelta(days=number - 1)).isoformat()
    done = nightly(folder / "night.toml", day)
    if done.returncode:
        raise SystemExit(f"night {number} ended with exit code {done.returncode}:\n{done.stderr}")
    registry = Registry(str(folder / "registry"))
    decided, serving = registry.decisions(), registry.serving()
    print(f"night {number}: {decided[-1].reason if decided else 'nothing was decided'}", flush=True)
    return serving.id if serving else SHIPPED


def system(folder: Path, model: str) -> str:
    """What `evaluate` takes for a model that served."""
    place = model if model == SHIPPED else f"{folder}/registry/{MODELS}/{model}/model"
    return f"{model}={place}"


def points(result: Result, name: str, model: str) -> float:
    """nDCG@10 of a model on a set, in percent."""
    (found,) = (judged for judged in result.sets if judged.name == name)
    return 100 * found.systems[model].means["nDCG@10"]


def measure(folder: Path, served: Sequence[str], *, top_k: int) -> dict[str, float]:
    """The figures of the questions that are asked, and of the unseen ones; `served` begins before the first night."""
    parts = ("asked", "unseen")
    result = evaluate(
        [folder / name for name in parts],
        systems=[system(folder, model) for model in dict.fromkeys(served)],
        top_k=top_k,
        work=folder / "work",
    )
    figures = {
        f"{name}_{night}": points(result, name, model) for name in parts for night, model in enumerate(served)
    }
    for name, suffix in (("unseen", ""), ("asked", "_asked")):
        last = points(result, name, served[-1])
        verdict = result.verdicts["nDCG@10"].get((name, served[-1]))
        figures[f"loop_gain{suffix}"] = last - points(result, name, SHIPPED)
        figures[f"loop_gain{suffix}_p"] = verdict.p if verdict else 1.0
    return figures


def lost(folder: Path, model: str, others: Sequence[Path], *, queries: int) -> dict[str, float]:
    """Points of nDCG@10 that a model has lost on other sets."""
    if not others or model == SHIPPED:
        return {}
    result = evaluate(
        others,
        systems=[system(folder, name) for name in (SHIPPED, model)],
        own=True,
        top_k=50,
        max_queries=queries,
        work=folder / "work",
    )
    names = [judged.name for judged in result.sets]
    return {f"lost_{name}": points(result, name, SHIPPED) - points(result, name, model) for name in names}


def labels(folder: Path) -> dict[str, float]:
    """The positives and negatives of the last night, and the share of each that is relevant by the judgements."""
    output = str(folder / "output")
    files = table_files(output, open_run(output), "hard_negatives")
    figures = {}
    for name in ("positive", "negative"):
        pairs = labelled(files, f"{name}_id")
        figures |= {f"{name}s": len(pairs), f"{name}s_relevant": share_relevant(folder / "asked", pairs)}
    return figures


def plot(figures: Mapping[str, float], nights: int, to: Path) -> None:
    """Draw nDCG@10 over the nights; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for name, text in (("asked", "asked, with clicks in the log"), ("unseen", "unseen")):
        axes.plot(range(nights + 1), [figures[f"{name}_{n}"] for n in range(nights + 1)], "o-", label=text)
    axes.set(xlabel="nights", ylabel="nDCG@10 of the serving model, percent", xticks=range(nights + 1))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(to, dpi=110)


def run(folder: Path, source: Path, size: Size, others: Sequence[Path] = ()) -> dict[str, float]:
    """Run all nights in an empty folder, and measure the models that served."""
    prepare(folder, source, size)
    served = [SHIPPED, *(run_night(folder, number) for number in range(1, size.nights + 1))]
    return {
        **measure(folder, served, top_k=size.top_k),
        **lost(folder, served[-1], others, queries=150),
        **labels(folder),
        "promoted": len(set(served)) - 1,
    }


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--set", type=Path, default=SAMPLE, metavar="DIR", help="a folder in BEIR's layout")
    flags.add_argument(
        "--others", type=Path, nargs="+", default=[], metavar="DIR", help="sets to forget nothing of"
    )
    flags.add_argument("--output", type=Path, metavar="DIR", help="an empty folder, which is kept")
    flags.add_argument("--plot", type=Path, metavar="FILE", help="draw nDCG@10 over the nights")
    args = flags.parse_args()
    size = SAMPLE_SIZE if args.set == SAMPLE else SET_SIZE
    if args.quick:
        size = size._replace(nights=2, asked=40, events=1500, gate=20, top_k=10, epochs=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = run(folder.absolute(), args.set, size, args.others)
    report(figures, args.json)
    if args.plot:
        plot(figures, size.nights, args.plot)


if __name__ == "__main__":
    main()
