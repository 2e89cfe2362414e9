"""The rounds of a training: train, mine negatives of the same queries again with the newest model, train again.

    _training/round-2/data-*.arrow   the second round's groups, and for each a .json record of how they were mined
    _training/round-2/1-STAGE-r2/    its stages, in the layout of `rerank_core.training.finetune`
    _training/dense/                 passages and vectors of the bi-encoder, for all rounds

The first round is in _training itself. Nothing that is complete is done again: existing groups are read, and finished
stages are skipped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from pipelines.train import data as train_data
from pipelines.train.dense_candidates import DenseCandidates
from pipelines.train.pools import read_pools
from rerank_core.config.backends import gives_cosines
from rerank_core.config.night import Tagging
from rerank_core.config.training import TrainingConfig, TrainingStage
from rerank_core.errors import TrainingError
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import reads_tags
from rerank_core.training.dev_set import MEASURE, DevSet
from rerank_core.training.groups import Group, without_duplicates, write_groups
from rerank_core.training.remine import Rater, Tally, best_round, mine_pools, of_round
from schemas.parsing import parse_json

if TYPE_CHECKING:
    from rerank_core.training.distributed import Processes
    from rerank_core.training.metrics_log import Line, MetricsLog


class Rounds(NamedTuple):
    """The result of all rounds."""

    number: int  # the round whose model is kept, from 1
    model: Path
    data: Path  # groups of its last stage
    records: list[dict[str, Any]]  # of each stage of each round, for the model card


class _Task(NamedTuple):
    """What all rounds share."""

    config: TrainingConfig
    held_out: frozenset[str]
    work: Path
    on_progress: Callable[[int], None]


def train_rounds(
    config: TrainingConfig,
    finetune: Any,
    devs: Mapping[str, DevSet],
    *,
    held_out: frozenset[str],
    work: Path,
    figures: MetricsLog,
    on_line: Callable[[Line], None],
    max_steps: int,
    on_progress: Callable[[int], None],
    processes: Processes,
) -> Rounds | None:
    """Train all rounds that are not done yet. Of several processes the main one prepares; the others return None.

    Args:
        config: the training.
        finetune: `rerank_core.training.finetune.finetune`, which needs the extra `train`.
        devs: dev sets by name, the same in every round.
        held_out: query_ids of the dev sets.
        work: `_training`.
        figures, on_line, max_steps: see finetune.
        on_progress: called with the number of groups newly read or mined.
        processes: those that train together.

    Raises:
        ManifestError, SourceError, JudgementError: runs or the dense corpus cannot be used.
        ModelError, MissingEngine: a model cannot be used.
        TrainingError: a training fails, or a round has no candidates.
    """
    task = _Task(config, held_out, work, on_progress)
    models: list[Path] = []
    files: list[Path] = []
    records: list[dict[str, Any]] = []
    for number in range(1, config.rounds + 1):
        newest = models[-1] if models else Path()
        of_this = of_round(config, number, newest)
        folder = work if number == 1 else work / f"round-{number}"
        data = [folder / f"data-{n}-{stage.name}.arrow" for n, stage in enumerate(of_this.stages, start=1)]
        with processes.main_first():  # the others then only read
            prepared = _prepare(task, of_this, data, records[: len(of_this.stages)], newest=newest)
        for record in prepared if records and processes.main else ():
            if line := figures.once("mined", record["name"], 0, round=number, **record["mined"]):
                on_line(line)
        records += prepared
        model = finetune(
            of_this,
            data,
            devs,
            folder=folder,
            figures=figures,
            on_line=on_line,
            max_steps=max_steps,
            processes=processes,
        )
        models.append(model)
        files.append(data[-1])
        if config.rounds > 1 and processes.main:
            _log_round(of_this, number, figures, on_line)
    if not processes.main:
        return None
    best = best_round(figures.lines)
    return Rounds(best, models[best - 1], files[best - 1], records)


def _log_round(
    of_this: TrainingConfig, number: int, figures: MetricsLog, on_line: Callable[[Line], None]
) -> None:
    """Log the result of a round: the measure of its last stage."""
    (stage,) = figures.of("stage", of_this.stages[-1].name)
    measured = {name: stage[name] for name in ("dev", MEASURE) if name in stage}
    if line := figures.once("round", stage["stage"], stage["step"], round=number, **measured):
        on_line(line)


def _prepare(
    task: _Task, of_this: TrainingConfig, data: list[Path], first: list[dict[str, Any]], *, newest: Path
) -> list[dict[str, Any]]:
    """Write the groups of a round's stages, and return their records.

    `first` are the records of the first round, whose runs the later ones mine; [] in the first round.
    """
    if not first:
        return [
            train_data.prepare_stage(stage, path, held_out=task.held_out, on_progress=task.on_progress)
            for stage, path in zip(of_this.stages, data, strict=True)
        ]
    paths = [path.with_suffix(".json") for path in data]
    if not all(path.exists() for path in paths):
        miner = _Miner(task, first, newest)
        for stage, groups, path, record in zip(of_this.stages, data, paths, first, strict=True):
            if not path.exists():  # written last: a resumed training learns from the same groups
                mined = miner.mine(stage, groups, record)
                filesystem.write_bytes(str(path), json.dumps(mined).encode())
    return [parse_json(path.read_text(encoding="utf-8")) for path in paths]


class _Miner:
    """Mines the negatives of a round, with models that are loaded once for all its stages."""

    def __init__(self, task: _Task, first: list[dict[str, Any]], newest: Path) -> None:
        self._task, self._remining = task, task.config.remining
        # By torch in full precision, not by an export that could differ; on a GPU if there is one.
        scorer = load_scorer(
            newest,
            backend="torch",
            device="cuda",
            allow_fallback=True,
            max_length=task.config.max_length,
        )
        self._model = Rater(scorer, task.config.reads_tags)
        self._teacher = self._load_teacher()
        dense = self._remining.dense
        runs = [run for record in first for run in _runs(record)]
        self._dense = DenseCandidates(dense, task.work / "dense", runs) if dense.model else None

    def mine(self, stage: TrainingStage, path: Path, first: dict[str, Any]) -> dict[str, Any]:
        """Write a stage's groups, from the runs that it read in the first round, and return their record."""
        counts: Counter[str] = Counter()
        tally = Tally(Counter(), Counter(), Counter())
        write_groups(self._groups(stage, first, counts, tally), path)
        mined = tally.as_json()
        if not counts["groups"]:
            dropped = ", ".join(f"{name} {count:,}" for name, count in mined["dropped"].items())
            raise TrainingError(
                f"stage {stage.name!r}: all {tally.candidates['pairs']:,} candidates were dropped ({dropped}); lower "
                "the margins in [remining], or train one round less"
            )
        mined["judge"] = self._remining.false_negatives.judge
        if self._dense:
            mined["corpus"] = self._dense.record
        return first | {"name": stage.name, "counts": dict(counts), "mined": mined}

    def _groups(
        self, stage: TrainingStage, first: dict[str, Any], counts: Counter[str], tally: Tally
    ) -> Iterator[Group]:
        seen: set[bytes] = set()
        tagged = self._task.config.keeps_tags or bool(self._teacher and self._teacher.tagged)
        runs = _runs(first)
        positives = train_data.labelled(stage, runs)
        for run in runs:
            for pools in read_pools(
                run,
                held_out=self._task.held_out,
                seen=seen,
                dense=self._dense,
                tagged=tagged,
                counts=counts,
                candidates=tally.candidates,
                positives=positives,
            ):
                mined = mine_pools(
                    pools,
                    model=self._model,
                    teacher=self._teacher,
                    remining=self._remining,
                    negatives=stage.negatives,
                    counts=counts,
                    tally=tally,
                )
                for group in without_duplicates(mined, seen, counts):
                    self._task.on_progress(1)
                    yield group

    def _load_teacher(self) -> Rater | None:
        judge = self._remining.false_negatives
        if judge.judge != "teacher":
            return None
        scorer = load_scorer(
            judge.teacher, backend=judge.backend, max_length=judge.max_length, device=judge.device
        )
        return Rater(scorer, reads_tags(scorer, Tagging()), cosine=gives_cosines(judge.backend))


def _runs(record: dict[str, Any]) -> list[train_data.Run]:
    """The runs that a stage read in the first round, whatever was published since."""
    return [(run["output"], stored_runs.find_run(run["output"], run["run_id"])) for run in record["runs"]]
