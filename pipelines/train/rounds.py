"""The rounds of a training: train, mine the same queries again with the newest model, train again.

    _training/round-2/data-*.arrow   the second round's groups, and beside each a record of how they were mined
    _training/round-2/1-STAGE-r2/    its stages, as `rerank_core.training.finetune` keeps them
    _training/dense/                 passages and vectors of the bi-encoder, for all rounds

The first round lies in _training itself. A round that is done is never done again: groups that are whole are only
read, and stages that are done are passed over.
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
from rerank_core.config.night import Tagging
from rerank_core.config.training import TrainingConfig, TrainingStage
from rerank_core.errors import TrainingError
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import reads_tags
from rerank_core.training.dev_set import MEASURE, DevSet
from rerank_core.training.groups import Group, without_duplicates, write_groups
from rerank_core.training.remine import Rater, Tally, best_round, mine_pools, of_round

if TYPE_CHECKING:
    from rerank_core.training.distributed import Processes
    from rerank_core.training.metrics_log import Figures, Line


class Rounds(NamedTuple):
    """What all rounds gave."""

    number: int  # the round whose model is kept, from 1
    model: Path
    data: Path  # of its last stage
    told: list[dict[str, Any]]  # of each stage of each round, for the model card


class _Task(NamedTuple):
    """What does not change from round to round."""

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
    figures: Figures,
    tell: Callable[[Line], None],
    max_steps: int,
    on_progress: Callable[[int], None],
    processes: Processes,
) -> Rounds | None:
    """Train every round, or those that are left; of several processes the main one prepares, and the others get None.

    Args:
        config: what to do.
        finetune: `rerank_core.training.finetune.finetune`, whose arguments the others are.
        devs: judged sets by name; they are the same in every round.
        held_out: query_ids of theirs.
        work: `_training`.
        figures, tell, max_steps: see finetune.
        on_progress: told how many more groups were read or mined.
        processes: those that train together.

    Raises:
        ManifestError, SourceError, JudgementError: runs or the dense corpus cannot be used.
        ModelError, MissingEngine: a model cannot be used.
        TrainingError: a training fails, or no candidate is left in a round.
    """
    task = _Task(config, held_out, work, on_progress)
    models: list[Path] = []
    files: list[Path] = []
    told: list[dict[str, Any]] = []
    for number in range(1, config.rounds + 1):
        newest = models[-1] if models else Path()
        now = of_round(config, number, newest)
        place = work if number == 1 else work / f"round-{number}"
        data = [place / f"data-{n}-{stage.name}.arrow" for n, stage in enumerate(now.stages, start=1)]
        with processes.main_first():  # the others find all of it prepared
            found = _prepare(task, now, data, told[: len(now.stages)], newest=newest)
        for one in found if told and processes.main else ():
            if line := figures.once("mined", one["name"], 0, round=number, **one["mined"]):
                tell(line)
        told += found
        model = finetune(
            now,
            data,
            devs,
            folder=place,
            figures=figures,
            tell=tell,
            max_steps=max_steps,
            processes=processes,
        )
        models.append(model)
        files.append(data[-1])
        if config.rounds > 1 and processes.main:
            _close(now, number, figures, tell)
    if not processes.main:
        return None
    best = best_round(figures.lines)
    return Rounds(best, models[best - 1], files[best - 1], told)


def _close(now: TrainingConfig, number: int, figures: Figures, tell: Callable[[Line], None]) -> None:
    """Write what a round came to: the measure of its last stage."""
    (stage,) = figures.of("stage", now.stages[-1].name)
    measured = {name: stage[name] for name in ("dev", MEASURE) if name in stage}
    if line := figures.once("round", stage["stage"], stage["step"], round=number, **measured):
        tell(line)


def _prepare(
    task: _Task, now: TrainingConfig, data: list[Path], first: list[dict[str, Any]], *, newest: Path
) -> list[dict[str, Any]]:
    """Write the groups of a round's stages, and give what the model card says of them.

    `first` is what it says of the first round's, whose runs later ones mine; [] in the first itself.
    """
    if not first:
        return [
            train_data.prepare_stage(stage, path, held_out=task.held_out, on_progress=task.on_progress)
            for stage, path in zip(now.stages, data, strict=True)
        ]
    records = [path.with_suffix(".json") for path in data]
    if not all(record.exists() for record in records):
        miner = _Miner(task, first, newest)
        for stage, path, record, known in zip(now.stages, data, records, first, strict=True):
            if not record.exists():  # it comes last: a resumed training learns from the very same groups
                told = miner.mine(stage, path, known)
                filesystem.write_bytes(str(record), json.dumps(told).encode())
    return [json.loads(record.read_text(encoding="utf-8")) for record in records]


class _Miner:
    """The models that a round is mined with, loaded once for all its stages."""

    def __init__(self, task: _Task, first: list[dict[str, Any]], newest: Path) -> None:
        self._task, self._remining = task, task.config.remining
        # Torch itself, in full precision: no export that could differ. A GPU where there is one.
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
        runs = [run for told in first for run in _runs(told)]
        self._dense = DenseCandidates(dense, task.work / "dense", runs) if dense.model else None

    def mine(self, stage: TrainingStage, path: Path, first: dict[str, Any]) -> dict[str, Any]:
        """Write a stage's groups, from the runs that its first round read."""
        counts: Counter[str] = Counter()
        tally = Tally(Counter(), Counter(), Counter())
        write_groups(self._groups(stage, first, counts, tally), path)
        mined = tally.plain()
        if not counts["groups"]:
            raise TrainingError(
                f"stage {stage.name!r}: no negative is left of {tally.candidates['pairs']:,} candidates (dropped: "
                f"{mined['dropped']}); lower the margins in remining, or set rounds to the round before"
            )
        mined["judge"] = self._remining.false_negatives.judge
        if self._dense:
            mined["corpus"] = self._dense.told
        return first | {"name": stage.name, "counts": dict(counts), "mined": mined}

    def _groups(
        self, stage: TrainingStage, first: dict[str, Any], counts: Counter[str], tally: Tally
    ) -> Iterator[Group]:
        seen: set[bytes] = set()
        tagged = self._task.config.keeps_tags or bool(self._teacher and self._teacher.tagged)
        for run in _runs(first):
            for pools in read_pools(
                run, held_out=self._task.held_out, seen=seen, dense=self._dense, tagged=tagged, counts=counts,
                candidates=tally.candidates,
            ):  # fmt: skip
                mined = mine_pools(
                    pools, model=self._model, teacher=self._teacher, remining=self._remining,
                    negatives=stage.negatives, counts=counts, tally=tally,
                )  # fmt: skip
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
        return Rater(scorer, reads_tags(scorer, Tagging()), cosine=judge.backend == "bi_encoder")


def _runs(told: dict[str, Any]) -> list[train_data.Run]:
    """The runs that a stage read in the first round, whatever was published since."""
    return [(run["output"], stored_runs.find_run(run["output"], run["run_id"])) for run in told["runs"]]
