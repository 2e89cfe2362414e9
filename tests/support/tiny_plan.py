"""A night of all steps, small enough for a test: two old nights, a training of a tiny BERT, a registry, retention.

    folder/night.toml     the configuration; the night of DAY is the one to run
    folder/output         two published nights, of which retention removes the older one
    folder/models         the registry

Needs torch.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
from pathlib import Path

from pipelines.nightly.run import run
from pipelines.registry.store import Registry
from pipelines.sources.local.bm25_index import build_index
from pipelines.storage import runs
from rerank_core.config.night import load_config
from schemas.manifest import to_json
from tests.support.tiny import CORPUS, DAY, GOOD_LOG, write_beir, write_lines
from tests.support.tiny_models import write_cross_encoder
from tests.support.tiny_nights import as_toml, make_training

SEED = 1  # of a base model whose training passes every check of promotion
OLD = (DAY - datetime.timedelta(days=3), DAY - datetime.timedelta(days=2))
NIGHT = """
[source]
log = "log.jsonl"
index = "index"
[candidates]
top_k = 6
[scoring]
model = "{model}"
max_length = 64
[tags]
recogniser = "rules"
[output]
path = "output"
queries_per_shard = 2
[plan]
train = "train.toml"
train_days = ["sunday"]
[registry]
path = "models"
[promotion]
judged_sets = ["set"]
margin = 1.0
max_shortcut_gap = 1.0
max_calibration_error = 1.0
min_overlap_at_10 = 0.0
[retention]
keep_runs = 2
[alerts]
summary = "summary.json"
"""
"""The limits of promotion let a random model pass, so that the night has every step."""


_TIME = re.compile(rb"published [0-9T:.+-]+")


def make_plan(folder: Path) -> Path:
    """Write everything but the night itself, and return its configuration file."""
    build_index(write_lines(folder / "corpus.jsonl", CORPUS), folder / "index")
    write_lines(folder / "log.jsonl", GOOD_LOG)
    queries = {passage["_id"]: f"what is {passage['title'] or 'rain'}" for passage in CORPUS}
    judged = "".join(f"{name}\t{name}\t1\n" for name in queries)
    (folder / "set").mkdir()
    write_beir(folder / "set", queries, f"query-id\tcorpus-id\tscore\n{judged}")
    write_cross_encoder(folder / "base", seed=SEED)
    training = make_training(folder / "output", folder / "base", folder, checkpoint_steps=2)
    (folder / "train.toml").write_text(as_toml(training))
    config = folder / "night.toml"
    config.write_text(NIGHT.format(model=""))
    for number, day in enumerate(OLD):
        _age(folder / "output", run(load_config(config), run_date=day).run_id, hours=1 - number)
    (folder / "output" / runs.HISTORY).unlink(missing_ok=True)  # which says that they were served just now
    config.write_text(NIGHT.format(model="registry:serving"))
    return config


def _age(output: Path, run_id: str, *, hours: int) -> None:
    """Let a run have been published long ago, out of the grace that retention gives."""
    manifest = runs.find_run(str(output), run_id)
    then = datetime.datetime(2025, 1, 1, 2 - hours, tzinfo=datetime.UTC).isoformat()
    path = output / runs.manifest_path(manifest.run_date, manifest.run_id)
    path.write_text(to_json(dataclasses.replace(manifest, created_at=then)))


def contents(folder: Path) -> dict[str, str]:
    """Checksums of what a night leaves: tables of all runs, what tables show, models, and which model serves.

    A model's card says when its data were published, and its id is of all its files; both are left out.
    """
    registry, output = Registry(str(folder / "models")), folder / "output"
    entries, latest = registry.entries(), runs.latest(str(output))
    names = {entry.id: f"model {number}" for number, entry in enumerate(reversed(entries))} | {"": "bundled"}
    serving = registry.serving()
    found = {
        "latest": latest.run_id if latest else "",
        "serving": names[serving.id if serving else ""],
        "decisions": " ".join(f"{one.action} {names[one.model]}" for one in registry.decisions()),
    }
    places = {"": output.glob("*/**/part-*.parquet")}
    places |= {names[entry.id]: Path(registry.model_path(entry.id)).rglob("*") for entry in entries}
    for name, paths in places.items():
        for path in filter(Path.is_file, paths):
            data = _TIME.sub(b"", path.read_bytes()) if path.name == "README.md" else path.read_bytes()
            below = path.relative_to(folder).as_posix().partition("/model/")
            found[f"{name}/{below[2]}" if name else below[0]] = hashlib.sha256(data).hexdigest()
    return found
